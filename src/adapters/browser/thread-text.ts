// The text of a helper thread, for where its file is refused. A part of its own: few pages need it.

/** Put in by the build: thread.ts, built. */
declare const LFM2_THREAD: string;

export const threadText: string = LFM2_THREAD;
