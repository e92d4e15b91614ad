// Models on a hub by name: lists a repository at one commit, takes the file that suits, checks it against the hub's own checksums. Knows no format.
import { FormatError, NetworkError, throwIfAborted } from "../errors.ts";
import type { DType } from "../memory/dtype.ts";
import { isRecord, quoted } from "../values.ts";
import { HttpSource } from "./http.ts";
import { chooseFile, type HubChoice, type HubFile, hasGguf } from "./hub-choice.ts";
import type { HubId } from "./hub-id.ts";
import { parseJsonBytes } from "./json-scan.ts";
import { MAX_LISTED_FILES, MAX_LISTING_BYTES, MAX_LISTING_PAGES } from "./limits.ts";
import { type Checksum, fetchSmall } from "./remote-file.ts";
import type { Network } from "./request.ts";
import { type ByteSource, type Folder, isPlainPath } from "./source.ts";

/** The address of the hub that is asked unless another is named. */
export const DEFAULT_ENDPOINT = "https://huggingface.co";

/** A repository's files at one commit. */
interface Listing {
  readonly repo: string;
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** What was found for an id. */
export interface HubModel {
  readonly source: ByteSource | Folder;
  /** The file that holds the weights. */
  readonly file: string;
  /** Bytes that a load will read, all files together. */
  readonly downloadBytes: number;
}

const isHex = (value: unknown, digits: number): value is string =>
  typeof value === "string" && value.length === digits && /^[0-9a-f]+$/.test(value);

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

async function list(network: Network, repo: string, revision: string | undefined, signal: AbortSignal): Promise<Listing> {
  const where = `${repo} on the hub`;
  const api = `${network.endpoint}/api/models/${repo}`;
  let commit = revision;
  if (!isHex(revision, 40)) {
    const { value } = await json(network, `${api}/revision/${encodeURIComponent(revision ?? "main")}`, where, signal);
    commit = isRecord(value) && isHex(value.sha, 40) ? value.sha : undefined;
  }
  if (commit === undefined) throw new FormatError(`${where}: expected the commit of the revision, got none. Check the endpoint.`);
  const files: HubFile[] = [];
  let url: string | undefined = `${api}/tree/${commit}?recursive=true`;
  for (let page = 0; url !== undefined; page++) {
    const { value, next }: { value: unknown; next: string | undefined } = await json(network, url, where, signal);
    if (!Array.isArray(value)) throw new FormatError(`${where}: expected a list of files, got something else. Check the endpoint.`);
    files.push(...value.map(fileOf).filter((f) => f !== undefined));
    if (next !== undefined && (page + 1 >= MAX_LISTING_PAGES || files.length > MAX_LISTED_FILES))
      throw new FormatError(`${where}: expected at most ${MAX_LISTED_FILES} files, the limit, got more. This is no model's repository.`);
    url = next === undefined ? undefined : nextPage(next, url, where);
  }
  return { repo, commit, files };
}

/** A listing goes on where it began. */
function nextPage(next: string, from: string, where: string): string {
  const [to, here] = [new URL(next, from), new URL(from)];
  if (to.origin === here.origin && to.pathname === here.pathname) return to.href;
  throw new FormatError(`${where}: expected the next page of the listing, got another address. Check the endpoint.`);
}

function checksumOf({ sha256, oid }: HubFile): Checksum | undefined {
  if (sha256 !== undefined) return { algorithm: "sha256", hex: sha256 };
  return oid === undefined ? undefined : { algorithm: "sha1", hex: oid };
}

function open(network: Network, { repo, commit }: Listing, file: HubFile, signal: AbortSignal | undefined): ByteSource {
  const { path, sizeBytes } = file;
  const url = `${network.endpoint}/${repo}/resolve/${commit}/${path}`;
  return new HttpSource(network, { name: path, url, sizeBytes, checksum: checksumOf(file), commit }, signal);
}

function folderOf(network: Network, listing: Listing, signal: AbortSignal | undefined): Folder {
  return {
    name: listing.repo.slice(listing.repo.indexOf("/") + 1),
    open: (path) => {
      const file = listing.files.find((f) => f.path === path);
      return Promise.resolve(file && open(network, listing, file, signal));
    },
  };
}

const isNotThere = (error: unknown): boolean => error instanceof NetworkError && [401, 403, 404].includes(error.status);

/** Many publish the quantized files in a repository beside the original one. */
async function besideIt(network: Network, { repo }: HubId, signal: AbortSignal): Promise<Listing | undefined> {
  try {
    return await list(network, `${repo}-GGUF`, undefined, signal);
  } catch (error) {
    if (isNotThere(error)) return undefined;
    throw error;
  }
}

interface Found {
  readonly listing: Listing;
  readonly choice: HubChoice;
}

async function find(network: Network, id: HubId, dtype: DType | undefined, signal: AbortSignal): Promise<Found> {
  const listing = await list(network, id.repo, id.revision, signal);
  const wish = { file: id.file, type: id.type, dtype: id.dtype ?? dtype };
  const isSmall = wish.file === undefined && (wish.dtype === undefined || wish.dtype === "q4" || wish.dtype === "q8");
  if (isSmall && id.revision === undefined && !hasGguf(listing.files)) {
    const beside = await besideIt(network, id, signal);
    const choice = beside && chooseFile(beside.files, wish);
    if (beside && choice?.kind === "gguf") return { listing: beside, choice };
  }
  const choice = chooseFile(listing.files, wish);
  if (choice) return { listing, choice };
  const wanted = id.file ?? id.type;
  const there = listing.files.map((f) => f.path).filter((p) => /\.(?:gguf|safetensors)$/i.test(p));
  const got = there.length > 0 ? there.slice(0, 8).map(quoted).join(", ") : "none";
  throw new FormatError(
    `${id.repo} on the hub: expected ${wanted === undefined ? "a GGUF file or config.json and model.safetensors" : quoted(wanted)}, got ${got}. Name a file that is there.`,
    { code: "missing-file" },
  );
}

/**
 * Finds the model of an id; of its files only the listing is read.
 * @param dtype what `load` was asked for: the file that suits it best is taken, small ones first where nothing was asked for
 * @param signal ends whatever the source or the folder's files do, too
 * @throws NetworkError when the hub does not answer, or not to this token; FormatError when it has no such file; AbortError
 */
export async function openHub(network: Network, id: HubId, dtype: DType | undefined, signal?: AbortSignal): Promise<HubModel> {
  throwIfAborted(signal);
  const { listing, choice } = await find(network, id, dtype, signal ?? new AbortController().signal);
  const source = choice.kind === "gguf" ? open(network, listing, choice.file, signal) : folderOf(network, listing, signal);
  return { source, file: choice.file.path, downloadBytes: choice.downloadBytes };
}
