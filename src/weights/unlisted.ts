// What a hub's refusal to list files leaves: the address where they may be all the same.
import { type Lfm2ErrorOptions, NetworkError } from "../errors.ts";

/** The hub does not list the files of a commit: it has the one that is named, or a folder's, at this address, or has not. */
export class UnlistedError extends NetworkError {
  readonly address: string;

  constructor(message: string, address: string, options: Lfm2ErrorOptions & { readonly status: number }) {
    super(message, options);
    this.address = address;
  }
}
