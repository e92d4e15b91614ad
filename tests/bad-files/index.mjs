// Wrong indexes of shards.
import { json, SHARDS, tensorShapes, utf8, validSafetensors } from "./valid.mjs";
import { F, N0, OK } from "./words.mjs";

/** [id, expect, field, what is wrong, (index, files) => raw bytes or nothing] */
const shardName = (name) => (ix) => {
  for (const k of Object.keys(ix.weight_map)) if (ix.weight_map[k] === SHARDS[1]) ix.weight_map[k] = name;
};
export const INDEX = [
  ["ix-valid", OK, "", "two shards, as they should be", () => {}],
  ["ix-path-parent", F, "\\.\\./", "shard name ../../x.safetensors", shardName("../../x.safetensors")],
  ["ix-path-inner-parent", F, "\\.\\.", "shard name a/../../x.safetensors", shardName("a/../../x.safetensors")],
  ["ix-path-absolute", F, "/etc", "shard name /etc/passwd", shardName("/etc/passwd")],
  ["ix-path-backslash", F, "\\\\", "shard name ..\\..\\x.safetensors", shardName("..\\..\\x.safetensors")],
  ["ix-path-drive", F, "C:", "shard name C:x.safetensors", shardName("C:x.safetensors")],
  ["ix-path-https", F, "https?:", "shard name is a URL of another host", shardName("https://attacker.invalid/x.safetensors")],
  ["ix-path-file-url", F, "file:", "shard name file:///etc/passwd", shardName("file:///etc/passwd")],
  ["ix-path-data-url", F, "data:", "shard name is a data: URL", shardName("data:application/octet-stream;base64,AAAA")],
  ["ix-path-protocol-relative", F, "//", "shard name //attacker.invalid/x", shardName("//attacker.invalid/x.safetensors")],
  ["ix-path-percent", F, "%2e|%", "percent-encoded parent folder", shardName("%2e%2e%2fx.safetensors")],
  ["ix-path-query", F, "\\?|#", "shard name with query and fragment", shardName(`${SHARDS[1]}?x=1#y`)],
  ["ix-path-nul", F, "shard|name", "NUL in the shard name", shardName(`${SHARDS[1]}\0.txt`)],
  ["ix-path-empty", F, "shard|empty|name", "empty shard name", shardName("")],
  ["ix-path-dot", F, "shard|name", "shard name is .", shardName(".")],
  ["ix-shard-not-there", F, "00003", "a shard that does not exist", shardName("model-00003-of-00003.safetensors")],
  ["ix-shard-is-index", F, "index.json|header|safetensors", "the shard is the index itself", shardName("model.safetensors.index.json")],
  ["ix-shard-not-string", F, "weight_map", "a shard name is a number", shardName(2)],
  [
    "ix-tensor-in-other-shard",
    F,
    N0,
    "a tensor is not in the shard that the index names",
    (ix) => {
      ix.weight_map[N0] = SHARDS[1];
    },
  ],
  [
    "ix-tensor-in-both",
    F,
    "duplicate|model.layers",
    "both shards hold the same tensor",
    (_ix, f) => {
      f[SHARDS[1]] = validSafetensors([...Object.keys(tensorShapes()).slice(7)]);
    },
  ],
  [
    "ix-shard-cut",
    F,
    "00002",
    "second shard one byte short",
    (_ix, f) => {
      f[SHARDS[1]] = f[SHARDS[1]].slice(0, -1);
    },
  ],
  [
    "ix-too-many-shards",
    F,
    "shards|limit",
    "5,000 different shard names",
    (ix) => {
      for (let i = 0; i < 5000; i++) ix.weight_map[`x.${i}`] = `model-${i}.safetensors`;
    },
  ],
  [
    "ix-no-weight-map",
    F,
    "weight_map",
    "no weight_map",
    (ix) => {
      delete ix.weight_map;
    },
  ],
  [
    "ix-weight-map-array",
    F,
    "weight_map",
    "weight_map is an array",
    (ix) => {
      ix.weight_map = Object.values(ix.weight_map);
    },
  ],
  [
    "ix-weight-map-proto",
    F,
    "__proto__",
    "weight_map has the key __proto__ (a tensor that no shard holds)",
    (ix) => utf8(JSON.stringify(ix).replace('"weight_map":{', `"weight_map":{"__proto__":"${SHARDS[0]}",`)),
  ],
  [
    "ix-total-size-lies",
    OK,
    "",
    "metadata.total_size is 1e30: advisory, never allocated",
    (ix) => {
      ix.metadata.total_size = 1e30;
    },
  ],
  ["ix-cut-json", F, "index|JSON", "index cut in the middle", (ix) => json(ix).slice(0, 200)],
];
