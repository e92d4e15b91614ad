/** See server.mjs. */
import type { IncomingMessage, ServerResponse } from "node:http";
export interface Server {
  readonly url: string;
  /** Paths that were asked for and not there. */
  readonly missing: readonly string[];
  close(): Promise<void>;
}
export const ISOLATED: Readonly<Record<string, string>>;
export function serveFolders(
  folders: Readonly<Record<string, string>>,
  options?: {
    readonly headers?: Readonly<Record<string, string>>;
    readonly answer?: (request: IncomingMessage, response: ServerResponse) => boolean;
    readonly versioned?: string;
  },
): Promise<Server>;
