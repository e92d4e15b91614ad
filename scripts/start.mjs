// `npm start -- "words"`: builds what is missing or older than its sources, then runs the CLI with the words given; without any it opens the chat.
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { ensureBuilt } from "./build.mjs";

// The command needs no declaration files.
await ensureBuilt(["wasm", "js", "mini"]);

const cli = fileURLToPath(new URL("../dist/cli.js", import.meta.url));
const child = spawn(process.execPath, [cli, ...process.argv.slice(2)], { stdio: "inherit" });
// Ctrl-C reaches the whole group: the command decides what it means, and this process waits for it.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => child.kill("SIGTERM"));
child.on("exit", (code, signal) => {
  process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
});
