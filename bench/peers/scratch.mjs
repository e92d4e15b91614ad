// Where what the peers need may be installed: not in this repository.
import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";

/** Where a path leads, through links as far as it exists. */
const real = (path) => (existsSync(path) ? realpathSync(path) : join(real(dirname(path)), basename(path)));

/** @returns the scratch folder's real path. @throws Error where it is the repository's or inside of it: tools would take it for a part */
export function outside(repository, scratch) {
  const path = real(resolve(scratch));
  const way = relative(realpathSync(repository), path);
  if (way.split(sep)[0] === ".." || isAbsolute(way)) return path;
  throw new Error(`--scratch: expected a folder outside of the repository, got ${scratch}. Leave it out, or name another.`);
}
