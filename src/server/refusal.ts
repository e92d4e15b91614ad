// What goes wrong, as OpenAI's API says it: a status and an error object. Neither stack nor cause leaves the server.

/** A request that is turned away before the model sees it. */
export class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, code: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

/** An answer that is no reply. */
export interface Failure {
  readonly status: number;
  readonly body: {
    readonly error: { readonly message: string; readonly type: string; readonly param: string | null; readonly code: string };
  };
  readonly headers: Readonly<Record<string, string>>;
}

const KINDS: Readonly<Record<number, string>> = { 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error" };
/** Classes of errors that are the caller's fault. By name: the model may come from another copy of the package. */
const CLIENT: ReadonlySet<string> = new Set(["InputError", "UnsupportedError"]);
/** OpenAI's words for codes of ours. */
const CODES: Readonly<Record<string, string>> = {
  input: "invalid_value",
  unsupported: "unsupported_value",
  "context-full": "context_length_exceeded",
};

/** @returns what to answer for an error: the caller's faults are told, the server's are not described */
export function failure(error: unknown): Failure {
  if (error instanceof Refusal) return answer(error.status, error.message, error.code, error.headers);
  const { name = "", message = "", code = "" } = error as { readonly name?: string; readonly message?: string; readonly code?: string };
  if (CLIENT.has(name)) return answer(400, asField(message), CODES[code] ?? code);
  if (name === "AbortError")
    return code === "disposed" ? unavailable("the model has been disposed.") : answer(499, "the client left.", "aborted");
  if (name === "MemoryError") return unavailable("not enough memory for this request now.");
  return answer(500, "the server could not answer.", "server_error");
}

const unavailable = (why: string): Failure => answer(503, `server: ${why}`, "unavailable", { "retry-after": "1" });

function answer(status: number, message: string, code: string, headers: Failure["headers"] = {}): Failure {
  const type = KINDS[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  const field = /^(?!body\b)[a-z_]+(?=[:.[])/.exec(message)?.[0];
  return { status, body: { error: { message, type, param: (status === 400 && field) || null, code } }, headers };
}

/** An option's message with the field that it came from: OpenAI's names are ours with underscores. */
function asField(message: string): string {
  const underscored = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return message
    .replace(/^\[lfm2\] /, "")
    .replace(/^sampling: expected (\w+) to be /, (_, name: string) => `${underscored(name)}: expected `)
    .replace(/^options: (\w+)/, (_, name: string) => underscored(name));
}
