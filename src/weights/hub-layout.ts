// Names in a folder of downloaded models, as Hugging Face's own tools lay it out: what they downloaded is found there, and what is downloaded here by them. Knows no file system: paths
// are of `/` and begin in the folder.
//
// models--org--name/blobs/<sha256, or git's sha1>      the bytes; our unfinished ones end in .lfm2-wasm.incomplete, since no lock is shared with other programs
//                  /snapshots/<commit>/<path>          a symbolic link to a blob; a hard link or a copy where links cannot be made
//                  /refs/<branch or tag>               the commit that it pointed to
// .locks/models--org--name/<blob>.lfm2-wasm.lock
// .lfm2-wasm-trash-<any>                               a model that is being removed
import type { StoreFile } from "./store.ts";

const FOLDER = "models--";
const PART = ".lfm2-wasm.incomplete";
const LOCK = ".lfm2-wasm.lock";
export const TRASH = ".lfm2-wasm-trash-";

export const isBlobName = (name: string): boolean => /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(name);
export const isModelFolder = (name: string): boolean => name.startsWith(FOLDER);
export const isLock = (name: string): boolean => name.endsWith(LOCK);
/** Whether a path in a model's folder is of an unfinished file. */
export const isPart = (path: string): boolean => path.startsWith("blobs/") && path.endsWith(PART);

/** An address has `:`; no id has. */
export const folderOf = (repo: string): string => FOLDER + (repo.includes(":") ? encodeURIComponent(repo) : repo.replaceAll("/", "--"));
export const repoOf = (folder: string): string => {
  const name = folder.slice(FOLDER.length);
  return name.includes("%") ? decodeURIComponent(name) : name.replaceAll("--", "/");
};

export const refPath = (repo: string, name: string): string => `${folderOf(repo)}/refs/${name}`;
export const snapshotPath = (repo: string, commit: string): string => `${folderOf(repo)}/snapshots/${commit}`;
export const shownPath = ({ repo, commit, path }: StoreFile): string => `${snapshotPath(repo, commit)}/${path}`;
export const blobPath = ({ repo, blob }: StoreFile): string => `${folderOf(repo)}/blobs/${blob}`;
export const partPath = (file: StoreFile): string => blobPath(file) + PART;
export const locksPath = (repo: string): string => `.locks/${folderOf(repo)}`;
export const lockPath = ({ repo, blob }: StoreFile): string => `${locksPath(repo)}/${blob}${LOCK}`;

/** @returns the commit that the text of a ref names */
export const commitIn = (text: string | undefined): string | undefined => /^[0-9a-f]{40}$/.exec(text?.trim() ?? "")?.[0];
