// Where a file is written: nothing of it is to be seen under its name before it is whole. Knows no runtime.

/** A file that appears at once, or not at all. */
export interface FileSink {
  /** Appends bytes, which hold until it resolves. @throws StorageError, code `"storage-full"` where there is no room */
  write(bytes: Uint8Array): Promise<void>;
  /** The file is whole: gives it its name. @throws StorageError */
  commit(): Promise<void>;
  /** Removes what was written; after `commit` it does nothing. */
  discard(): Promise<void>;
}
