// The calls about models that are not loaded which every adapter exports. Their code is a part of the package that plain loads do without: it comes when it is called for.

import type { Availability, CacheQuery, Pulled } from "./downloads.ts";
import type { Inspection, InspectOptions } from "./inspect.ts";
import type { LoadOptions, ModelSource, Platform } from "./lfm2.ts";
import { part } from "./part.ts";
import type { StoredModel, StoredModels } from "./weights/store.ts";

/** What a model is, what is downloaded, and what could be. */
export interface CacheCalls {
  /**
   * Reads what a checkpoint is from its headers: config, tensors, and the memory that each dtype and context would take.
   * @param source as for `load`
   * @throws InputError, FormatError, UnsupportedError, NetworkError, StorageError, AbortError
   */
  inspect(source: ModelSource, options?: InspectOptions): Promise<Inspection>;
  /**
   * Tells whether a model can run here, in how much memory, and how much must still be downloaded. Reads headers and the cache, no weights.
   * @param source as for `load`
   * @param options those that `load` would get
   * @throws InputError, AbortError; any other obstacle is the answer's `reason`
   */
  availability(source: ModelSource, options?: LoadOptions): Promise<Availability>;
  /**
   * Downloads into the cache all that a load with the same options would read: what is there already is not asked for again, what is there in part goes on from there.
   * @param id `org/name[@revision][:file or type]`, or an https: address as for `load`
   * @throws InputError, FormatError, UnsupportedError, NetworkError, AbortError; StorageError where it cannot be kept; PlatformError where there is no cache
   */
  pull(id: string, options?: LoadOptions): Promise<Pulled>;
  /**
   * Lists the LFM2 models in the cache, whoever downloaded them, with their sizes.
   * @returns the models; `freeBytes` of the list is what the cache would still take
   * @throws StorageError; PlatformError where there is no cache
   */
  listModels(query?: CacheQuery): Promise<StoredModels>;
  /**
   * Removes a model from the cache, unfinished downloads too.
   * @param id `org/name`, as `listModels` tells it
   * @returns what was there; undefined when nothing was
   * @throws InputError; StorageError, `code` `"in-use"` while it is being downloaded; PlatformError where there is no cache
   */
  removeModel(id: string, query?: CacheQuery): Promise<StoredModel | undefined>;
}

export function cacheCalls(platform: Platform): CacheCalls {
  const code = (): Promise<typeof import("./downloads.ts")> => part("downloads", () => import("./downloads.ts"));
  return {
    inspect: async (source, options) => (await part("inspect", () => import("./inspect.ts"))).inspectWith(platform, source, options),
    availability: async (source, options) => (await code()).availabilityWith(platform, source, options),
    pull: async (id, options) => (await code()).pullWith(platform, id, options),
    listModels: async (query) => (await code()).listModelsWith(platform, query),
    removeModel: async (id, query) => (await code()).removeModelWith(platform, id, query),
  };
}
