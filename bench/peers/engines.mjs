// The engines that peers.mjs sets against ours: what each needs from npm, its form of the weights, the cells that a slow one is measured at.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromPreset } from "../../scripts/checkpoints/make-gguf.mjs";
import { gguf } from "../lib/checkpoints.mjs";
import { writeOnnx } from "./onnx-file.mjs";
import { findBrowser, startNode, startPage } from "./remote.mjs";
import { outside } from "./scratch.mjs";

export const VERSIONS = { "node-llama-cpp": "3.22.1", "@wllama/wllama": "2.4.0", "onnxruntime-web": "1.30.0", protobufjs: "7.6.6" };
const LLAMA_BINARY = `@node-llama-cpp/${{ win32: "win", darwin: "mac" }[process.platform] ?? "linux"}-${process.arch}`;

const PACKAGES = {
  native: { "node-llama-cpp": VERSIONS["node-llama-cpp"], [LLAMA_BINARY]: VERSIONS["node-llama-cpp"] }, // without its script, which would fetch a GPU build
  wllama: { "@wllama/wllama": VERSIONS["@wllama/wllama"] },
  "onnxruntime-web": { "onnxruntime-web": VERSIONS["onnxruntime-web"], protobufjs: VERSIONS.protobufjs },
};
export const PEERS = Object.keys(PACKAGES);

/**
 * Peers that are so slow that they are measured at these cells only, with few tokens a round. wllama reads a prompt as slowly as it writes; the ONNX form has one type of
 * weights. With `--full` shapes, prompts and contexts are those of the others.
 */
const LIMITS = {
  wllama: { shapes: ["350m"], prefills: [128], contexts: [0, 512], decodeTokens: 8 },
  "onnxruntime-web": { shapes: ["350m"], prefills: [128, 512], contexts: [0], decodeTokens: 8 },
};
/** The likeliest ids of the peer among which ours is to be: onnxruntime-web rounds activations with one scale for a whole prompt. */
const LIKELY = { "onnxruntime-web": 100 };

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What runs ours and the peers, from a scratch folder outside the repository. */
export class Engines {
  /** Names of those that can run, ours first. */
  names = ["ours"];
  #scratch;
  #options;

  constructor(options, note) {
    const { peers } = options;
    const scratch = outside(here("../.."), options.scratch);
    this.#scratch = scratch;
    this.#options = options;
    mkdirSync(scratch, { recursive: true });
    if (!existsSync(join(scratch, "package.json"))) writeFileSync(join(scratch, "package.json"), '{ "type": "module", "private": true }\n');
    for (const peer of peers) {
      try {
        this.#install(peer, note);
        this.names.push(peer);
      } catch (error) {
        note(`left out: ${peer}: ${error.message.split("\n")[0]}`);
      }
    }
    for (const name of ["worker.mjs", "native.mjs", "wllama-page.mjs", "onnx.mjs"]) copyFileSync(here(name), join(scratch, name));
  }

  #install(peer, note) {
    if (!PACKAGES[peer]) throw new Error(`expected some of ${PEERS.join(", ")}`);
    if (peer === "wllama" && !findBrowser())
      throw new Error("it needs a Chromium, and none is on PATH: apt-get install chromium, or name one in CHROMIUM");
    const has = (name) => existsSync(join(this.#scratch, "node_modules", name, "package.json"));
    const missing = Object.entries(PACKAGES[peer]).filter(([name]) => !has(name));
    if (missing.length) {
      const words = ["install", "--ignore-scripts", "--omit=optional", "--save-exact", ...missing.map((pair) => pair.join("@"))];
      note(`npm ${words.join(" ")}`);
      execFileSync("npm", words, { cwd: this.#scratch, stdio: ["ignore", "ignore", "inherit"] });
    }
    const link = join(this.#scratch, "wllama");
    if (peer === "wllama" && !existsSync(link)) symlinkSync(join(this.#scratch, "node_modules/@wllama/wllama/esm"), link, "junction");
  }

  /** Whether the engine has the weights in that form, and is fast enough for them. */
  runs(engine, shape, type) {
    if (engine === "onnxruntime-web" && type !== "Q8_0") return false;
    return this.#options.full || !LIMITS[engine] || LIMITS[engine].shapes.includes(shape);
  }

  /** @param list "prefills" or "contexts" */
  measures(engine, list, n) {
    return this.#options.full || !LIMITS[engine] || LIMITS[engine][list].includes(n);
  }

  /** Whether the run is to measure a peer at a cell, be it there or not. @param what "decode 0", "prefill 128", "start" or "warm start" */
  asks(peer, shape, type, what) {
    const { peers, types, parts, prefills, contexts } = this.#options;
    if (!peers.includes(peer) || !types.includes(type) || !this.runs(peer, shape, type)) return false;
    const [kind, n] = what.split(" ");
    if (kind !== "prefill" && kind !== "decode") return parts.includes(kind);
    const [list, numbers] = kind === "prefill" ? ["prefills", prefills] : ["contexts", contexts];
    return parts.includes("speed") && numbers.includes(Number(n)) && this.measures(peer, list, Number(n));
  }

  isSlow = (engine) => engine in LIMITS;
  isPage = (engine) => engine === "wllama";
  decodeTokens = (engine, otherwise) => LIMITS[engine]?.decodeTokens ?? otherwise;
  likely = (engine) => LIKELY[engine] ?? 1;

  /** @returns the path of the weights in the engine's form, made once */
  async weights(engine, shape, type) {
    return engine === "onnxruntime-web" ? this.onnx(shape) : gguf(shape, type);
  }

  /** @returns the path of an ONNX graph, with its weights beside it */
  onnx(shape, { isFloat = false } = {}) {
    const path = join(this.#scratch, `${shape}-${isFloat ? "f32" : "q8"}.onnx`);
    if (existsSync(path)) return path;
    console.error(`making ${path}`);
    writeOnnx(fromPreset(shape, 1), path, createRequire(join(this.#scratch, "package.json"))("protobufjs"), { isFloat });
    return path;
  }

  /** Starts a worker; a page is told the model that its server sends. */
  start(engine, model, more = {}) {
    if (this.isPage(engine)) return startPage("wllama-page.mjs", { files: this.#scratch, model, ...more });
    const script = {
      ours: here("ours.mjs"),
      native: join(this.#scratch, "native.mjs"),
      "onnxruntime-web": join(this.#scratch, "onnx.mjs"),
    };
    return startNode(script[engine], more);
  }

  /** Starts what the engine needs and nothing else. */
  startIdle(engine, model) {
    return this.isPage(engine) ? this.start(engine, model, { sampled: true }) : startNode(here("nothing.mjs"));
  }
}

/** Finished cells of an earlier run on the same machine. */
export function earlierCells(path, { cpu, runtime }) {
  if (!existsSync(path)) return {};
  const earlier = JSON.parse(readFileSync(path, "utf8"));
  if (earlier.cpu !== cpu || earlier.runtime !== runtime)
    throw new Error(`--resume: expected a run on ${cpu}, ${runtime}, got one on ${earlier.cpu}, ${earlier.runtime}. Leave --resume out.`);
  return earlier.cells;
}
