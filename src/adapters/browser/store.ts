// Downloaded models in a browser. An adapter asks for this file when a load first needs it.
import { ShelfStore } from "../../weights/shelf-store.ts";
import type { Store } from "../../weights/store.ts";
import { browserShelf } from "./shelf.ts";

/** Opens the store of models. @param name a folder in the origin's storage */
export async function browserStore(name?: string): Promise<Store | undefined> {
  const shelf = await browserShelf(name);
  return shelf && new ShelfStore(shelf);
}
