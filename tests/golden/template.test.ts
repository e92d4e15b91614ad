// Chat templates against what jinja2 renders. What @huggingface/jinja renders otherwise is listed, and the list fails when one is mended.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { ChatTemplate, type Message, type Segment } from "../../src/text/chat-template.ts";
import { JinjaTemplate } from "../../src/text/jinja.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";

interface Case {
  readonly template: string;
  readonly title: string;
  readonly messages: readonly Message[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly expected: string;
}
interface Snippet {
  readonly source: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly expected: string;
}

const folder = "tests/golden/data/text";
const { now, cases, snippets } = JSON.parse(readFileSync(`${folder}/template_cases.json`, "utf8")) as {
  now: string;
  cases: Case[];
  snippets: Snippet[];
};
const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync(`${folder}/tokenizer.json`, "utf8")));

/** Conversations that come out otherwise, and how: values of calls are written as Python there. */
const differentCases = ["template-lfm2.5.jinja: structured calls with True, None and a list"];
/** Snippets that come out otherwise, by their source and data. */
const differentSnippets = [
  "{{ true }} {{ false }} {{ none }} {}",
  '{{ x | string }} {"x":true}',
  '{{ x | string }} {"x":null}',
  '{{ x | string }} {"x":[1,"two",null,true]}',
  '{{ x | string }} {"x":1}',
  '{{ x }} {"x":{"a":"b\'c"}}',
  '{{ x | tojson }} {"x":{"a":[1,2,"é<>&\'\\"",null,true]}}',
  "{{ 'x' ~ 1 ~ none }} {}",
  "{{ '%s-%d' | format('a', 3) }} {}",
  "{{ 'aXbX' | replace('X', '-') }} {{ 'ab' | upper }} {{ [1,2] | length }} {{ 'b' in 'abc' }} {{ 7 // 2 }} {{ 7 % 3 }} {}",
  "{{ x.rstrip() }}|{{ x.lstrip('\\n') }}|{{ x.strip() }}|{{ x.startswith('\\n') }} {\"x\":\"\\n a \\n\"}",
];

/** Runs `work` while the clock stands at the goldens' time. */
function atGoldenTime<T>(work: () => T): T {
  const Real = globalThis.Date;
  globalThis.Date = class extends Real {
    constructor() {
      super(now);
    }
  } as DateConstructor;
  try {
    return work();
  } finally {
    globalThis.Date = Real;
  }
}

function render({ template, messages, options }: Case): Segment[] {
  const { bos_token, eos_token, add_generation_prompt, continue_final_message, tools, ...variables } = options;
  const source = readFileSync(`${folder}/${template}`, "utf8");
  const chat = new ChatTemplate(source, { bosToken: bos_token as string, eosToken: eos_token as string }, tokenizer.addedTokens);
  return atGoldenTime(() =>
    chat.render(messages, {
      addGenerationPrompt: add_generation_prompt as boolean,
      ...(tools === undefined ? {} : { tools: tools as unknown[] }),
      ...(continue_final_message === undefined ? {} : { continueFinalMessage: continue_final_message as boolean }),
      variables,
    }),
  );
}

const textOf = (segments: readonly Segment[]): string => segments.map((s) => s.text).join("");
const attempt = (work: () => string): string => {
  try {
    return work();
  } catch (error) {
    return String(error);
  }
};
const nameOf = (c: Case): string => `${c.template}: ${c.title}`;

describe("golden chat templates", () => {
  for (const c of cases) {
    if (differentCases.includes(nameOf(c))) continue;
    it(nameOf(c), () => assert.equal(textOf(render(c)), c.expected));
  }

  it("differs where the list says, and nowhere else", () => {
    const different = cases.filter((c) => attempt(() => textOf(render(c))) !== c.expected);
    assert.deepEqual(different.map(nameOf), differentCases);
    assert.equal(cases.length - different.length, 42);
  });

  it("gives the ids of the whole prompt wherever nobody wrote a control token", () => {
    const harmless = cases.filter(
      (c) => !differentCases.includes(nameOf(c)) && !JSON.stringify([c.messages, c.options.tools ?? []]).includes("<|"),
    );
    assert.ok(harmless.length > 30, `${harmless.length}`);
    for (const c of harmless)
      assert.deepEqual(tokenizer.encodeSegments(render(c)), tokenizer.encode(c.expected, { controlTokens: true }), nameOf(c));
  });

  it("keeps markers inside content from being control tokens", () => {
    const marked = cases.filter((c) => c.title === "markers inside content");
    assert.equal(marked.length, 2);
    for (const c of marked) {
      const ids = tokenizer.encodeSegments(render(c));
      assert.deepEqual(
        ids.filter((id) => id < 14),
        [1, 6, 7, 6],
      );
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), c.expected);
    }
  });
});

describe("golden Jinja snippets", () => {
  const run = (s: Snippet): string => atGoldenTime(() => new JinjaTemplate(s.source).render(new Map(Object.entries(s.data))));
  const name = (s: Snippet): string => `${s.source} ${JSON.stringify(s.data)}`;

  for (const s of snippets) {
    if (differentSnippets.includes(name(s))) continue;
    it(name(s), () => assert.equal(run(s), s.expected));
  }

  it("differs where the list says, and nowhere else", () => {
    const different = snippets.filter((s) => attempt(() => run(s)) !== s.expected);
    assert.deepEqual(different.map(name), differentSnippets);
    assert.equal(snippets.length - different.length, 22);
  });
});
