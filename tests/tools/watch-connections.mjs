// Preloaded into a process under test (--import, worker threads included): writes a line to the file WATCH_LOG for whatever goes out, by TCP, UDP, DNS or a child.
import childProcess from "node:child_process";
import dgram from "node:dgram";
import dns from "node:dns";
import { appendFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";

const log = (what) => appendFileSync(process.env.WATCH_LOG, `${what}\n`);

/** Calls `note` with the arguments before each call. */
function watch(owner, name, note) {
  const original = owner[name];
  owner[name] = function (...args) {
    log(note(...args));
    return original.apply(this, args);
  };
}

watch(net.Socket.prototype, "connect", (first, second) => {
  const options = Array.isArray(first) ? first[0] : first;
  if (typeof options !== "object") return `tcp ${typeof second === "string" ? second : "localhost"}:${options}`;
  return options.path == null ? `tcp ${options.host ?? "localhost"}:${options.port}` : `pipe ${options.path}`;
});
for (const name of ["send", "connect"]) watch(dgram.Socket.prototype, name, () => `udp ${name}`);
for (const owner of [dns, dns.promises])
  for (const name of ["lookup", "resolve", "resolve4", "resolve6"]) watch(owner, name, (host) => `dns ${host}`);
for (const name of ["spawn", "exec", "execFile", "fork", "spawnSync", "execSync", "execFileSync"])
  watch(childProcess, name, (file) => `child ${file}`);
syncBuiltinESMExports();
