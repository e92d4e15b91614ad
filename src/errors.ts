// The error classes of the package. Every message reads `[lfm2] <where>: expected <x>, got <y>. <What to do.>`; nothing here knows what went wrong.
// A class that a program sees says its own name, here and elsewhere: what is published is minified.

/** Options of every error of this package. */
export interface Lfm2ErrorOptions {
  /** A stable, machine-readable reason, for example `"context-full"`. */
  readonly code?: string;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/** The class above all errors that this package throws on purpose. */
export class Lfm2Error extends Error {
  static override readonly name: string = "Lfm2Error";
  override readonly name: string = "Lfm2Error";
  /** A stable, machine-readable reason; by default the kind of error, for example `"format"`. */
  readonly code: string;

  constructor(message: string, options: Lfm2ErrorOptions = {}, defaultCode = "lfm2") {
    super(
      message.startsWith("[lfm2] ") ? message : `[lfm2] ${message}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.code = options.code ?? defaultCode;
  }
}

/** A caller's argument is wrong: a bad option, an empty prompt, a prompt that does not fit. */
export class InputError extends Lfm2Error {
  static override readonly name = "InputError";
  override readonly name = "InputError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "input");
  }
}

/** A file's bytes are not what the format demands. */
export class FormatError extends Lfm2Error {
  static override readonly name = "FormatError";
  override readonly name = "FormatError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "format");
  }
}

/** Well formed, but not something that this package can run. */
export class UnsupportedError extends Lfm2Error {
  static override readonly name = "UnsupportedError";
  override readonly name = "UnsupportedError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "unsupported");
  }
}

/** Not enough memory; the message says how much is needed and how much there is. */
export class MemoryError extends Lfm2Error {
  static override readonly name = "MemoryError";
  override readonly name = "MemoryError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "memory");
  }
}

/** A transfer failed. */
export class NetworkError extends Lfm2Error {
  static override readonly name = "NetworkError";
  override readonly name = "NetworkError";
  /** HTTP status, or 0 when there was no answer. */
  readonly status: number;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  constructor(message: string, options: Lfm2ErrorOptions & { readonly status?: number; readonly retryable?: boolean } = {}) {
    super(message, options, "network");
    this.status = options.status ?? 0;
    this.retryable = options.retryable ?? false;
  }
}

/** A file or a cache could not be read or written. */
export class StorageError extends Lfm2Error {
  static override readonly name = "StorageError";
  override readonly name = "StorageError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "storage");
  }
}

/** The runtime lacks something, or a part of the engine died. */
export class PlatformError extends Lfm2Error {
  static override readonly name = "PlatformError";
  override readonly name = "PlatformError";
  constructor(message: string, options?: Lfm2ErrorOptions) {
    super(message, options, "platform");
  }
}

/** The caller's `signal` ended the call. */
export class AbortError extends Lfm2Error {
  static override readonly name = "AbortError";
  override readonly name = "AbortError";
  constructor(message = "aborted: the signal that was passed to this call fired.", options?: Lfm2ErrorOptions) {
    super(message, options, "abort");
  }
}

/** An error as plain data, for a channel that clones what it carries. */
export interface ErrorMessage {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly stack?: string;
  readonly status?: number;
  readonly retryable?: boolean;
  readonly cause?: ErrorMessage;
}

/** @returns `error` as data that `structuredClone` keeps whole. */
export function packError(error: unknown): ErrorMessage {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  return {
    name: error.name,
    message: error.message,
    ...(error.stack === undefined ? {} : { stack: error.stack }),
    ...(error instanceof Lfm2Error ? { code: error.code } : {}),
    ...(error instanceof NetworkError ? { status: error.status, retryable: error.retryable } : {}),
    ...(error.cause === undefined ? {} : { cause: packError(error.cause) }),
  };
}

const classes = new Map<string, new (message: string, options?: Lfm2ErrorOptions) => Error>(
  [InputError, FormatError, UnsupportedError, MemoryError, NetworkError, StorageError, PlatformError, AbortError].map((c) => [c.name, c]),
);

/** @returns the error that `packError` took apart, of the same class. */
export function unpackError(data: ErrorMessage): Error {
  const cause = data.cause === undefined ? undefined : unpackError(data.cause);
  const Class = classes.get(data.name);
  const { code, status, retryable } = data;
  const options = Object.fromEntries(Object.entries({ code, cause, status, retryable }).filter(([, v]) => v !== undefined));
  const error = Class ? new Class(data.message, options) : new Error(data.message, cause === undefined ? undefined : { cause });
  if (data.stack !== undefined) error.stack = data.stack;
  return error;
}

/** Throws AbortError when `signal` has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(undefined, { cause: signal.reason });
}
