// `lfm2 pull`, `list`, `remove`: the models on this disk. What they found goes to stdout, how far they are to stderr.
import type { ArgsDef } from "citty";
import { type LoadProgress, listModels, pull as pullModel, removeModel, type StoredModel, type StoredModels } from "lfm2-wasm";
import { formatBytes } from "../memory/arena.ts";
import { DTYPES } from "../memory/dtype.ts";
import { CACHE_DIR_ARG, HELP_ARG, JSON_ARG, type Options, refuseWords, UsageError } from "./args.ts";
import { ByteBar } from "./byte-bar.ts";
import { cacheOption, foundText, warn } from "./model.ts";
import { harmless, interruptible, note, StatusLine, table, write } from "./terminal.ts";

/** Options of `lfm2 list` and `lfm2 remove`. */
export const CACHE_ARGS: ArgsDef = { "cache-dir": CACHE_DIR_ARG, json: JSON_ARG, ...HELP_ARG };

/** Options of `lfm2 pull`. */
export const PULL_ARGS: ArgsDef = {
  dtype: { type: "string", valueHint: "TYPE", description: "take the file that suits f32, bf16, f16, q8 or q4 best" },
  ...CACHE_ARGS,
};

const query = (options: Options): { cacheDir?: string | undefined } => ({ cacheDir: options.text("cache-dir") });

function oneId(options: Options, command: string): string {
  const [id, ...rest] = options.words;
  if (id === undefined || rest.length) throw new UsageError(`${command} expects one model, org/name, got ${options.words.length}`);
  return id;
}

interface Shown {
  show(event: LoadProgress): void;
  /** @param isDone whether it ended well */
  end(isDone: boolean, message: string): void;
}

/**
 * A bar on a terminal.
 * @param stopped what it says on Ctrl-C
 */
function onTerminal(stopped: string): Shown {
  const bar = new ByteBar(stopped);
  const status = new StatusLine();
  status.show("asking for it");
  return {
    show: (event) => {
      if (event.phase === "open") {
        status.clear();
        note(foundText(event));
        bar.start(event);
      } else bar.show(event, event.phase === "download");
    },
    end: (isDone, message) => {
      status.clear();
      if (!bar.isStarted) note(message);
      else bar.end(isDone, message);
    },
  };
}

/** Without a terminal: a line for what was chosen, and one at the end. */
function inLines(): Shown {
  let isWaiting = false;
  return {
    show: (progress) => {
      const { phase, file } = progress;
      if (phase === "open") note(foundText(progress));
      if (phase === "wait" && !isWaiting) note(`${harmless(file)}: waiting for another process that downloads it`);
      isWaiting = phase === "wait";
    },
    end: (_, message) => note(message),
  };
}

/** `lfm2 pull`. @returns the exit code */
export async function pull(options: Options): Promise<number> {
  const id = oneId(options, "pull");
  const dtype = options.choice("dtype", DTYPES);
  const stopped = `stopped; what has come is kept: lfm2 pull ${harmless(id)} goes on from there`;
  const shown = process.stderr.isTTY ? onTerminal(stopped) : inLines();
  return interruptible(async (signal) => {
    try {
      const pulled = await pullModel(id, { dtype, signal, cache: cacheOption(options), onProgress: (event) => shown.show(event) });
      const { file, sizeBytes, downloadedBytes, license } = pulled;
      const came = downloadedBytes === 0 ? "all was there" : `${formatBytes(downloadedBytes)} downloaded`;
      shown.end(
        true,
        `${harmless(`${pulled.id}: ${file}`)}, ${formatBytes(sizeBytes)}, ${came}, licence ${harmless(license ?? "not told")}`,
      );
      warn(pulled);
      if (options.flag("json")) write(`${JSON.stringify(pulled)}\n`);
      return 0;
    } catch (error) {
      shown.end(false, signal.aborted ? stopped : "failed");
      throw error;
    }
  });
}

const filesOf = ({ revisions }: StoredModel): string[] => [
  ...new Set(revisions.flatMap(({ files }) => files.map(({ path }) => path)).filter((path) => /\.(?:gguf|safetensors)$/.test(path))),
];

/** How much more there is room for, where that is known. */
const free = ({ freeBytes }: StoredModels): string => (freeBytes === undefined ? "" : `, ${formatBytes(freeBytes)} of the disk are free`);

/** `lfm2 list`. @returns the exit code */
export async function list(options: Options): Promise<number> {
  refuseWords(options, "list");
  const models = await listModels(query(options));
  if (options.flag("json")) write(`${JSON.stringify(models, null, 2)}\n`);
  else if (models.length === 0) note(`no models here; lfm2 pull org/name downloads one${free(models)}`);
  else {
    const rows = models.map((model) => [
      model.id,
      formatBytes(model.sizeBytes),
      [...filesOf(model), ...(model.partialBytes > 0 ? [`${formatBytes(model.partialBytes)} of an unfinished download`] : [])].join(", "),
    ]);
    write(harmless(table(rows, [1])));
    note(`${formatBytes(models.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))} in all${free(models)}`);
  }
  return 0;
}

/** `lfm2 remove`. @returns the exit code: 1 when there was nothing */
export async function remove(options: Options): Promise<number> {
  const id = oneId(options, "remove");
  const removed = await removeModel(id, query(options));
  if (options.flag("json")) write(`${JSON.stringify({ id, removedBytes: removed?.sizeBytes ?? 0 })}\n`);
  if (removed) {
    note(`${harmless(id)} removed, ${formatBytes(removed.sizeBytes)}`);
    return 0;
  }
  const there = (await listModels(query(options))).map((model) => model.id);
  note(`${harmless(id)} is not here${there.length > 0 ? `; here are ${harmless(there.join(", "))}` : ""}`);
  return 1;
}
