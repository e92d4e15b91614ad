// A caller's own `fetch`, used from another side: it is called here, its answer's head crosses as data and its body as a stream.
import type { Fetch, FetchResponse } from "../weights/request.ts";
import type { Channel, Handler } from "./channel.ts";

/** Headers that a load asks for: a stand-in for `fetch` need not be able to list its own. */
const HEADERS = [
  ...["content-length", "content-range", "content-encoding", "etag", "last-modified", "location", "link", "retry-after"],
  ...["x-linked-etag", "x-linked-size", "x-repo-commit", "x-error-message"],
];

/** The head of an answer. */
interface Head extends Pick<FetchResponse, "status" | "url"> {
  readonly type: string | undefined;
  readonly headers: readonly (readonly [string, string])[];
  readonly hasBody: boolean;
}

/** Of a body what is used. */
interface Body {
  getReader(): {
    read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
    cancel(): Promise<void>;
  };
}

type Request = [id: number, url: string, init: { readonly headers: Record<string, string>; readonly redirect: "manual" | "follow" }];

const listOf = (headers: FetchResponse["headers"]): (readonly [string, string])[] =>
  HEADERS.flatMap((name) => {
    const value = headers.get(name);
    return value === null ? [] : [[name, value] as const];
  });

/** @returns what the other side needs to call `fetch` */
export function fetchHandlers(fetch: Fetch): Record<string, Handler> {
  const under = new Map<number, { readonly control: AbortController; readonly body: object | null }>();
  return {
    fetch: async (args): Promise<Head> => {
      const [id, url, init] = args as unknown as Request;
      const control = new AbortController();
      under.set(id, { control, body: null });
      try {
        const { status, type, url: from, headers, body } = await fetch(url, { ...init, signal: control.signal });
        if (body) under.set(id, { control, body });
        return { status, type, url: from, headers: listOf(headers), hasBody: body !== null };
      } catch (error) {
        under.delete(id);
        throw error;
      }
    },
    "fetch.body": async function* ([id], signal) {
      const request = under.get(id as number);
      const reader = (request?.body as Body | null | undefined)?.getReader();
      signal.addEventListener("abort", () => void reader?.cancel().catch(() => {}));
      try {
        for (let next = await reader?.read(); next?.value; next = await reader?.read()) yield next.value.slice();
      } finally {
        under.delete(id as number);
      }
    } as Handler,
    "fetch.abort": ([id]) => {
      under.get(id as number)?.control.abort();
      under.delete(id as number);
    },
  };
}

/** @returns a `fetch` that the other side of `channel` does */
export function remoteFetch(channel: Channel): Fetch {
  let ids = 0;
  return async (url, { signal, ...init }) => {
    const id = ids++;
    const abort = (): void => channel.tell("fetch.abort", [id]);
    signal.addEventListener("abort", abort, { once: true });
    const { headers, hasBody, type, ...head } = (await channel.call("fetch", [id, url, init])) as Head;
    const byName = new Map(headers);
    const stream = channel.stream("fetch.body", [id]) as AsyncGenerator<Uint8Array>;
    return {
      ...head,
      ...(type === undefined ? {} : { type }),
      headers: { get: (name) => byName.get(name.toLowerCase()) ?? null },
      body: hasBody ? { getReader: (mode?: object) => reader(mode, stream, abort), cancel: async () => abort() } : null,
    };
  };
}

function reader(mode: object | undefined, stream: AsyncGenerator<Uint8Array>, abort: () => void): object {
  if (mode) throw new TypeError("these bytes come in buffers of their own");
  return {
    read: async () => {
      const { done, value } = await stream.next();
      return done ? { done: true } : { done: false, value };
    },
    cancel: async () => abort(),
  };
}
