// What a hub tells of a repository: its commit, its licence, its files with their checksums. Knows no choice and no cache.
import { FormatError, NetworkError } from "../errors.ts";
import { isRecord } from "../values.ts";
import type { HubFile } from "./hub-choice.ts";
import { parseJsonBytes } from "./json-scan.ts";
import { licenseOf } from "./license.ts";
import { MAX_LISTED_FILES, MAX_LISTING_BYTES, MAX_LISTING_PAGES } from "./limits.ts";
import { fetchSmall } from "./remote-file.ts";
import type { Network } from "./request.ts";
import { isPlainPath } from "./source.ts";

/** A repository's files at one commit. */
export interface Listing {
  readonly repo: string;
  readonly commit: string;
  readonly files: readonly HubFile[];
  /** What the model's card says, where a hub told it. */
  readonly license?: string | undefined;
}

/** @returns whether `value` is so many hexadecimal digits */
export const isHex = (value: unknown, digits: number): value is string =>
  typeof value === "string" && value.length === digits && /^[0-9a-f]+$/.test(value);

/** Of an endpoint that serves files and does not offer the question: a mirror, a folder of a web server. */
const NOT_OFFERED: ReadonlySet<number> = new Set([403, 404, 405, 410, 501]);

/** @returns whether the hub's answer was that it does not answer this; a token that is missing (401) is another matter */
export const isNotOffered = (error: unknown): error is NetworkError => error instanceof NetworkError && NOT_OFFERED.has(error.status);

async function json(
  network: Network,
  url: string,
  what: string,
  signal: AbortSignal,
): Promise<{ value: unknown; next: string | undefined }> {
  const { bytes, headers } = await fetchSmall(network, url, what, MAX_LISTING_BYTES, signal);
  const next = /<([^<>]{1,2048})>\s*;\s*rel="next"/.exec(headers.get("link") ?? "")?.[1];
  return { value: parseJsonBytes(bytes, what, { maxBytes: MAX_LISTING_BYTES }), next };
}

function fileOf(entry: unknown): HubFile | undefined {
  if (!isRecord(entry) || entry.type !== "file") return undefined;
  const { path, size, oid, lfs } = entry;
  if (typeof path !== "string" || !isPlainPath(path)) return undefined; // nothing that a load asks for has such a name
  if (!Number.isSafeInteger(size) || (size as number) < 0) return undefined;
  const inLfs = isRecord(lfs) ? lfs : undefined;
  const sha256 = inLfs && isHex(inLfs.oid, 64) ? inLfs.oid : undefined;
  return { path, sizeBytes: size as number, oid: !inLfs && isHex(oid, 40) ? oid : undefined, sha256 };
}

/** What a hub tells of a revision: its commit and the model's card. @returns nothing where a commit is asked for and the hub does not offer it: files may still be listed */
async function about(network: Network, url: string, where: string, isPinned: boolean, signal: AbortSignal): Promise<object> {
  try {
    const { value } = await json(network, url, where, signal);
    return isRecord(value) ? value : {};
  } catch (error) {
    if (isPinned && isNotOffered(error)) return {};
    throw error;
  }
}

/**
 * Lists a repository at one commit. Where a commit is asked for, a hub that lists its files and tells nothing of it will do: the licence is then unknown.
 * @param revision branch, tag or commit; "main" unless given
 * @throws NetworkError when the hub does not answer, or not to this token; FormatError when the answer is none
 */
export async function listRepository(network: Network, repo: string, revision: string | undefined, signal: AbortSignal): Promise<Listing> {
  const where = `${repo} on the hub`;
  const api = `${network.endpoint}/api/models/${repo}`;
  const { sha, cardData } = (await about(
    network,
    `${api}/revision/${encodeURIComponent(revision ?? "main")}`,
    where,
    isHex(revision, 40),
    signal,
  )) as { sha?: unknown; cardData?: unknown };
  const commit = [revision, sha].find((value) => isHex(value, 40));
  const card = isRecord(cardData) ? cardData : {};
  const license = licenseOf({ license: card.license, name: card.license_name });
  if (commit === undefined) throw new FormatError(`${where}: expected the commit of the revision, got none. Check the endpoint.`);
  const files: HubFile[] = [];
  let url: string | undefined = `${api}/tree/${commit}?recursive=true`;
  for (let page = 0; url !== undefined; page++) {
    const { value, next }: { value: unknown; next: string | undefined } = await json(network, url, where, signal);
    if (!Array.isArray(value)) throw new FormatError(`${where}: expected a list of files, got something else. Check the endpoint.`);
    for (const entry of value) {
      const file = fileOf(entry);
      if (file) files.push(file);
    }
    if (files.length > MAX_LISTED_FILES || (next !== undefined && page + 1 >= MAX_LISTING_PAGES))
      throw new FormatError(`${where}: expected at most ${MAX_LISTED_FILES} files, the limit, got more. This is no model's repository.`);
    url = next === undefined ? undefined : nextPage(next, url, where);
  }
  return { repo, commit, files, license };
}

/** A listing goes on where it began. */
function nextPage(next: string, from: string, where: string): string {
  const [to, here] = [new URL(next, from), new URL(from)];
  if (to.origin === here.origin && to.pathname === here.pathname) return to.href;
  throw new FormatError(`${where}: expected the next page of the listing, got another address. Check the endpoint.`);
}
