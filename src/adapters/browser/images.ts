// Packed images in a browser. An adapter asks for this file when a load first needs it.
import type { ImageStore } from "../../weights/packed-image.ts";
import { shelfImages } from "../../weights/shelf-images.ts";
import { browserShelf } from "./shelf.ts";

/** @param name a folder in the origin's storage @param mostBytes all images together */
export async function browserImages(name?: string, mostBytes?: number): Promise<ImageStore | undefined> {
  const shelf = await browserShelf(name);
  return shelf && shelfImages(shelf, mostBytes);
}
