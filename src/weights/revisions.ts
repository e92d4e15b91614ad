// What a store holds of a model's commits, told by the paths of its files: refs/<branch or tag> and snapshots/<commit>/<path>, in all layouts. Knows no storage.
import type { Store, StoredModel } from "./store.ts";

/**
 * @param paths of all files of the repository, in its folder
 * @param decode gives the name of a branch or tag back that stands in a path
 */
export async function revisionsOf(
  store: Pick<Store, "revision" | "files">,
  repo: string,
  paths: readonly string[],
  decode: (name: string) => string = String,
): Promise<StoredModel["revisions"]> {
  const names = new Map<string, string[]>();
  for (const path of paths) {
    if (!path.startsWith("refs/")) continue;
    const name = decode(path.slice("refs/".length));
    const commit = await store.revision(repo, name);
    if (commit !== undefined) names.set(commit, [...(names.get(commit) ?? []), name]);
  }
  const commits = new Set(paths.flatMap((path) => /^snapshots\/([0-9a-f]{40})\//.exec(path)?.[1] ?? []));
  const revisions = [];
  for (const commit of commits) revisions.push({ commit, names: names.get(commit) ?? [], files: await store.files(repo, commit) });
  return revisions;
}
