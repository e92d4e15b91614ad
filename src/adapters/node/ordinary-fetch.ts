// Whether `fetch` is Node's own and does what it does where nothing is set, so that requests may be sent another way.
import process from "node:process";

/** Where `fetch` of Node, and the package undici, keep what sends requests. */
const DISPATCHERS = ["undici.globalDispatcher.1", "undici.globalDispatcher.2"].map((name) => Symbol.for(name));
/** Those that were found to be Node's own. */
const own = new WeakSet<object>();

/** Whether a dispatcher is what Node makes where nobody has set one: its class says where it comes from when it refuses what it is given. */
function isOwn(dispatcher: object | undefined): boolean {
  if (dispatcher === undefined || own.has(dispatcher)) return true;
  const { constructor: Kind, dispatch } = dispatcher as { constructor: new (options: object) => object; dispatch: unknown };
  if (!/^(?:Agent|Dispatcher1Wrapper)$/.test(Kind.name) || dispatch !== Kind.prototype.dispatch) return false;
  try {
    new Kind({ factory: "none" });
  } catch (error) {
    if (!(error as Error).stack?.includes("node:internal/")) return false;
    own.add(dispatcher);
    return true;
  }
  return false;
}

/** Whether `fetch` is Node's and does what it does where nothing is set: no proxy, no recorder. Another function, or a Node whose `fetch` is written otherwise, is left alone. */
export function isOrdinary(): boolean {
  const kept = globalThis as { readonly [key: symbol]: object | undefined };
  const flags = [...process.execArgv, process.env.NODE_OPTIONS ?? "", process.env.NODE_USE_ENV_PROXY ? "--use-env-proxy" : ""];
  return (
    Function.prototype.toString.call(globalThis.fetch).includes("fetchImpl") &&
    DISPATCHERS.every((key) => isOwn(kept[key])) &&
    !flags.some((flag) => flag.includes("--use-env-proxy"))
  );
}
