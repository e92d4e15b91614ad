// The licences of what is bundled into dist/: minified code carries no notices, so they lie beside it in a file.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Compiled into the wasm files, which no metafile of esbuild knows: the standard library's few functions. */
const IN_WASM = ["assemblyscript"];
/** Packages that come without the text of their licence, and one of the same authors and licence that has it. */
const TEXT_FROM = { "@assemblyscript/loader": "assemblyscript" };

const packageOf = (path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];

/** Files as they are, but for indents, which are a fifteenth of their bytes. */
const textsOf = (root, name, pattern) => {
  const folder = join(root, "node_modules", TEXT_FROM[name] ?? name);
  return readdirSync(folder)
    .filter((file) => pattern.test(file))
    .map((file) =>
      readFileSync(join(folder, file), "utf8")
        .trim()
        .replace(/^[ \t]+/gm, ""),
    );
};

/** @returns the texts of a package's licence and of the notice that goes with it */
function licenceOf(root, name) {
  const texts = textsOf(root, name, /^licen[cs]e/i);
  if (texts.length === 0)
    throw new Error(
      `${name}: expected a file with its licence, got none. Name a package that has the same text in scripts/third-party.mjs.`,
    );
  return [...texts, ...textsOf(root, name, /^notice/i)];
}

/** What of a text tells it from others: not its spaces, nor the brackets of what a form leaves open. */
const keyOf = (text) => text.replace(/[\s[\]{}]+/g, "");

/** MIT's: what goes before this is whose it is, what follows is the same in all. */
const PERMISSION = "Permission is hereby granted";

/** @returns the part of a text that names its authors, if it can be told from the one that others share */
function split(text) {
  const at = text.indexOf(PERMISSION);
  return at < 0 ? { head: "", body: text } : { head: text.slice(0, at).trim(), body: text.slice(at) };
}

/**
 * @param {string} root folder of the project
 * @param {readonly import("esbuild").Metafile[]} metafiles of everything that is bundled
 * @returns {string} every package of which code is in an output, with version, licence, whose it is and its text; a text that several share stands once
 */
export function thirdPartyLicenses(root, metafiles) {
  const inputs = metafiles.flatMap(({ outputs }) => Object.values(outputs).flatMap(({ inputs }) => Object.entries(inputs)));
  const names = new Set([...IN_WASM, ...inputs.flatMap(([path, { bytesInOutput }]) => (bytesInOutput > 0 ? (packageOf(path) ?? []) : []))]);
  const parts = new Map();
  for (const name of [...names].sort()) {
    const { version, license } = JSON.parse(readFileSync(join(root, "node_modules", name, "package.json"), "utf8"));
    for (const text of licenceOf(root, name)) {
      const { head, body } = split(text);
      const part = parts.get(keyOf(body)) ?? { packages: new Map(), body };
      part.packages.set(head, [...(part.packages.get(head) ?? []), `${name} ${version} (${license})`]);
      parts.set(keyOf(body), part);
    }
  }
  const named = ([head, packages]) => `${packages.join("\n")}\n${head === "" ? "" : `\n${head}\n`}`;
  const printed = [...parts.values()].map(({ packages, body }) => `${[...packages].map(named).join("\n")}\n${body}\n`);
  return `Code of these packages is part of files in this folder.\n\n${printed.join(`\n${"-".repeat(80)}\n\n`)}`;
}
