// What of a conversation fits the context: all of it, or without its oldest turns. Knows messages and numbers of tokens, not how one becomes the other.
import type { Message } from "./text/messages.ts";

/** A conversation as it is fed. */
export interface Prompt {
  readonly ids: Uint32Array;
  /** Messages behind the system's that were left out, the oldest ones. */
  readonly droppedMessages: number;
}

/** Room that a conversation has. */
export interface Room {
  readonly maxContextTokens: number;
  /** Tokens that the reply may take at most. */
  readonly maxTokens: number;
  /** Messages that were left out before and stay so. */
  readonly droppedMessages: number;
}

/** A reply is to find this share of the context free, or all of maxTokens. */
const REPLY_SHARE = 1 / 4;
/** Once turns are dropped, so much of the context is left to the others: the next turns then fit, and find their past in the cache. */
const KEPT_SHARE = 1 / 2;

/**
 * Leaves out the oldest turns when a reply would find too little room: whole turns, a user's message up to the next one. System messages in front stay, and the last turn.
 * @param encode messages → ids
 */
export async function dropOldest(
  messages: readonly Message[],
  encode: (messages: readonly Message[]) => Promise<Uint32Array>,
  room: Room,
): Promise<Prompt> {
  const { maxContextTokens, maxTokens, droppedMessages } = room;
  const head = leadingSystem(messages);
  const prompt = async (dropped: number): Promise<Prompt> => {
    const ids = await encode([...messages.slice(0, head), ...messages.slice(head + dropped)]);
    return { ids, droppedMessages: dropped };
  };
  const cuts = cutsOf(messages, head).filter((cut) => cut >= droppedMessages);
  const first = await prompt(cuts[0] ?? 0);
  if (first.ids.length + Math.min(maxTokens, Math.floor(REPLY_SHARE * maxContextTokens)) <= maxContextTokens) return first;
  return (await shortest(cuts.slice(1), prompt, KEPT_SHARE * maxContextTokens)) ?? first;
}

function leadingSystem(messages: readonly Message[]): number {
  const first = messages.findIndex(({ role }) => role !== "system");
  return first < 0 ? messages.length : first;
}

/** Numbers of messages behind `head` that may be left out: none, one turn, two, … all but the last. */
function cutsOf(messages: readonly Message[], head: number): number[] {
  const starts = messages.flatMap(({ role }, i) => (i > head && role === "user" ? [i - head] : []));
  return [0, ...starts];
}

/** The prompt that leaves out least and has at most `tokens`, else the one that leaves out most; by bisection, for each try renders a conversation. */
async function shortest(
  cuts: readonly number[],
  prompt: (dropped: number) => Promise<Prompt>,
  tokens: number,
): Promise<Prompt | undefined> {
  let [low, high] = [0, cuts.length - 1];
  let found: Prompt | undefined;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const tried = await prompt(cuts[middle] ?? 0);
    if (tried.ids.length <= tokens) [found, high] = [tried, middle - 1];
    else low = middle + 1;
  }
  return found ?? (cuts.length > 0 ? prompt(cuts.at(-1) ?? 0) : undefined);
}
