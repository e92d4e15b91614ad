// A Node that does nothing: what the runtime takes by itself.
import { serve } from "./worker.mjs";

serve({});
