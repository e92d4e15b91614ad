// What may be fetched, and what may be sent with it.
import { InputError } from "../errors.ts";
import { quoted } from "../values.ts";

export const isHttp = ({ protocol }: URL): boolean => protocol === "https:" || protocol === "http:";

/**
 * @returns the address as a URL
 * @throws InputError when it is none that can be fetched. The message does not repeat it: it may hold a password.
 */
export function checkAddress(address: string | URL, what: string): URL {
  let url: URL;
  try {
    url = new URL(String(address));
  } catch {
    throw new InputError(`load: ${what}: expected an address, got a text that is none.`);
  }
  if (!isHttp(url)) throw new InputError(`load: ${what}: expected an http: or https: address, got one of ${quoted(url.protocol)}.`);
  if (url.username !== "" || url.password !== "")
    throw new InputError(`load: ${what}: expected an address without user and password, got one with. Pass a token as an option.`);
  return url;
}

/** @throws InputError when the token could not be sent; `fetch` would put it into its own error's message. */
export function checkToken(token: string | undefined): void {
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return;
  throw new InputError("load: token: expected printable ASCII without spaces, got other characters. Copy it again.");
}
