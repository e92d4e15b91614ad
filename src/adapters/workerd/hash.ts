// Checksums of a stream by workerd's own DigestStream: it compiles no kernel of ours.
import type { Hash } from "../../weights/request.ts";

interface DigestStream {
  readonly digest: Promise<ArrayBuffer>;
  getWriter(): { write(bytes: Uint8Array): Promise<void>; close(): Promise<void> };
}

const NAMES = { sha1: "SHA-1", sha256: "SHA-256" } as const;

/** @returns a checksum under way; bytes are copied, for the stream takes them when it likes */
export function createHash(algorithm: "sha1" | "sha256"): Hash {
  const { DigestStream } = crypto as unknown as { readonly DigestStream: new (algorithm: string) => DigestStream };
  const stream = new DigestStream(NAMES[algorithm]);
  const writer = stream.getWriter();
  let failure: unknown;
  const noted = (task: Promise<void>): void => void task.catch((error) => (failure ??= error));
  return {
    update: (bytes) => noted(writer.write(bytes.slice())),
    digest: async () => {
      await writer.close();
      if (failure !== undefined) throw failure;
      return Array.from(new Uint8Array(await stream.digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    },
  };
}
