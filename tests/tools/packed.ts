// The package as npm would lay it: packed, unpacked into a project's node_modules, its dependencies beside it. No registry is asked.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** @returns the folder of the installed package */
export function installPacked(project: string): string {
  const modules = join(project, "node_modules");
  const installed = join(modules, "lfm2-wasm");
  rmSync(installed, { recursive: true, force: true });
  mkdirSync(installed, { recursive: true });
  const pack = ["pack", "--json", "--ignore-scripts", "--pack-destination", project];
  const [{ filename }] = JSON.parse(execFileSync("npm", pack, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })) as [
    { filename: string },
  ];
  execFileSync("tar", ["xzf", join(project, filename), "-C", installed, "--strip-components=1"]);
  cpSync(join("node_modules", "@huggingface"), join(modules, "@huggingface"), { recursive: true });
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  return installed;
}
