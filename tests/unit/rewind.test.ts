// Where a chat stands after a rewind when a turn that ended later was read anew: its mark keeps the position of its end, and the cache holds less of it.
import assert from "node:assert/strict";
import { Chat, type ChatHost } from "../../src/chat.ts";

const messages = ["Hi", "Hello", "How are you?", "Well"].map((content, i) => ({ role: i % 2 ? "assistant" : "user", content }));
const mark = (position: number, ofMessages: number, at?: number) => ({ position, at, messages: ofMessages, droppedMessages: 0 });
/** The first turn ended at 50, of which the second kept 30 as they were. */
const MARKS = [mark(0, 0), mark(30, 2, 50), mark(70, 4)];

const rewound: number[] = [];
const host = { rewindSession: async (_, position) => void rewound.push(position) } as ChatHost;
const chatOf = (marks: readonly unknown[] = MARKS): Chat =>
  Chat.restore(
    host,
    1,
    Uint32Array.from({ length: 70 }, (_, i) => i),
    JSON.stringify({ messages, marks }),
  );

describe("a rewind behind a turn that was read anew", () => {
  for (const [to, kept, marks, left] of [
    [70, 70, [0, 50, 70], 4],
    [69, 69, [0, 50], 2],
    [50, 30, [0, 50], 2],
    [49, 49, [0, 50], 2],
    [31, 31, [0, 50], 2],
    [30, 30, [0, 30], 2],
    [29, 29, [0], 0],
    [0, 0, [0], 0],
  ] as const)
    it(`to ${to}: there, with ${kept} tokens and ${left} messages`, async () => {
      const chat = chatOf();
      await chat.rewind(to);
      assert.deepEqual([chat.position, chat.tokens.length, chat.marks, chat.messages.length], [to, kept, marks, left]);
      assert.equal(rewound.at(-1), kept);
      await chat.rewind(chat.position);
      assert.deepEqual([chat.position, chat.marks, chat.messages.length], [to, marks, left], "once more changes nothing");
    });

  it("marks that no chat has: a FormatError", () => {
    for (const marks of [[], [mark(5, 0)], [mark(0, 0), mark(-1, 2)], [mark(0, 0), mark(3, -2)], [mark(0, 0), mark(3.5, 2)]])
      assert.throws(() => chatOf(marks), { name: "FormatError", message: /expected the messages of a chat in the state/ });
  });
});
