// A worker behind a real socket: workerd itself, without miniflare's worker in between.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { binaryOf } from "../package-binary.mjs";

const KINDS = { ".js": "esModule", ".mjs": "esModule", ".wasm": "wasm", ".gguf": "data" };

/** @returns {string | undefined} workerd's binary, where it is installed */
export const findWorkerd = () => binaryOf("@cloudflare", `workerd-${process.platform}-64`, "bin", "workerd");

/** @param {string} address of an inspector @returns {Promise<(method: string) => Promise<any>>} what calls its methods */
export async function inspect(address) {
  // what miniflare brings: Node 20 has no WebSocket of its own
  const WebSocket = createRequire(resolve("tests", "runtimes", "package.json"))("ws");
  const socket = new WebSocket(address);
  await new Promise((opened, failed) => socket.once("open", opened).once("error", failed));
  const waiting = new Map();
  socket.on("message", (text) => {
    const { id, result } = JSON.parse(text); // an event has no id
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  let id = 0;
  return (method) =>
    new Promise((answered) => {
      waiting.set(++id, answered);
      socket.send(JSON.stringify({ id, method }));
    });
}

/**
 * Serves the modules of a folder, `main` first.
 * @param {string} folder @param {string} main @param {{ flags?: readonly string[], env?: Record<string, string>, isInspected?: boolean }} [options] compatibility flags; variables; whether the inspector listens
 * @returns {Promise<{ port: number, close(): Promise<void>, pid: number, inspector: string | undefined }>} `inspector`: address of its socket
 */
export async function serveWorker(folder, main, { flags = [], env = {}, isInspected = false } = {}) {
  const names = readdirSync(folder).filter((name) => extname(name) in KINDS);
  const modules = [main, ...names.filter((name) => name !== main)].map(
    (name) => `(name = "${name}", ${KINDS[extname(name)]} = embed "${name}")`,
  );
  const bindings = Object.entries(env).map(([name, text]) => `(name = "${name}", text = ${JSON.stringify(text)})`);
  const config = join(folder, `${main}.capnp`);
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker), (name = "internet", network = (allow = ["public", "private"]))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
const worker :Workerd.Worker = (
  modules = [${modules.join(", ")}],
  bindings = [${bindings.join(", ")}],
  compatibilityDate = "2026-04-01",
  compatibilityFlags = ${JSON.stringify(flags)}
);
`,
  );
  const binary = findWorkerd();
  if (!binary || !existsSync(binary)) throw new Error("workerd is not installed: npm ci --prefix tests/runtimes");
  const listening = isInspected ? ["--inspector-addr=127.0.0.1:0"] : [];
  const child = spawn(binary, ["serve", "--control-fd=3", ...listening, config], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  let said = "";
  let inspector;
  child.stderr.on("data", (bytes) => {
    said += bytes;
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const port = await new Promise((resolve, reject) => {
    let text = "";
    child.stdio[3].on("data", (bytes) => {
      text += bytes;
      const [port, inspected] = ["listen", "listen-inspector"].map(
        (event) => new RegExp(`"event":"${event}".*"port":(\\d+)`).exec(text)?.[1],
      );
      if (inspected) inspector = `ws://127.0.0.1:${inspected}/main`;
      if (port) resolve(Number(port));
    });
    child.once("error", reject);
    child.once("close", (code) => reject(new Error(`workerd ended with ${code}: ${said}`)));
  });
  return {
    port,
    pid: child.pid,
    inspector,
    close: () => {
      child.kill("SIGKILL");
      return ended;
    },
  };
}
