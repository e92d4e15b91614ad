// lfm2-wasm/whole: brings every part of the package along that would come later by import(), which a service worker forbids. An entry for its effect; it exports nothing.
import * as context from "../../context.ts";
import * as downloads from "../../downloads.ts";
import * as draft from "../../draft.ts";
import * as forward from "../../forward.ts";
import * as network from "../../from-network.ts";
import * as beam from "../../generate/beam.ts";
import * as engineForward from "../../generate/forward.ts";
import * as savedSession from "../../generate/saved-session.ts";
import * as speculation from "../../generate/speculation.ts";
import * as headerProgress from "../../header-progress.ts";
import * as inspect from "../../inspect.ts";
import * as profile from "../../kernels/profile.ts";
import * as folder from "../../models/folder-checkpoint.ts";
import * as gguf from "../../models/gguf-checkpoint.ts";
import { bring } from "../../part.ts";
import * as inWorker from "../../remote/in-worker.ts";
import * as score from "../../score.ts";
import * as chatTemplate from "../../text/chat-template.ts";
import * as addressCache from "../../weights/address-cache.ts";
import * as hub from "../../weights/hub.ts";
import * as objects from "../../weights/objects.ts";
import * as packedImage from "../../weights/packed-image.ts";
import * as sharedSource from "../../weights/shared-source.ts";
import * as browserImages from "./images.ts";
import * as browserSchemes from "./schemes.ts";
import * as browserStore from "./store.ts";
import * as threadText from "./thread-text.ts";

bring({
  "address-cache": addressCache,
  beam,
  "browser-images": browserImages,
  "browser-schemes": browserSchemes,
  "browser-store": browserStore,
  "chat-template": chatTemplate,
  context,
  downloads,
  draft,
  "engine-forward": engineForward,
  folder,
  forward,
  gguf,
  "header-progress": headerProgress,
  hub,
  "in-worker": inWorker,
  inspect,
  network,
  objects,
  "packed-image": packedImage,
  profile,
  "saved-session": savedSession,
  score,
  "shared-source": sharedSource,
  speculation,
  "thread-text": threadText,
});
