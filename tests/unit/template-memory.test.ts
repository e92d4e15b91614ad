// What one call in a chat template could make of little: refused before it is made. Every attack runs in a heap that has no room for what it would build.
import assert from "node:assert/strict";
import { Worker, workerData } from "node:worker_threads";
import { JinjaTemplate } from "../../src/text/jinja.ts";

/** A text or a list, doubled so many times, as `n.v`; then what is done with it. */
const doubled = (start: string, times: number, rest: string): string =>
  `{% set n = namespace(v=${start}) %}{% for i in range(${times}) %}{% set n.v = n.v + n.v %}{% endfor %}${rest}`;
const twice = (texts: number, lists: number, rest: string): string =>
  doubled("'a,'", texts, `{% set m = namespace(v=[n.v]) %}{% for i in range(${lists}) %}{% set m.v = m.v + m.v %}{% endfor %}${rest}`);

const CHARACTERS = /at most 4194304 characters of output/;
const PARTS = /at most 524288 parts of a text/;
const ITEMS = /at most 100000 items/;
const NAMESPACE = /expected a namespace to be read by its names/;

const ATTACKS: readonly (readonly [what: string, source: string, says: RegExp])[] = [
  ["a text that replaces each of many", doubled("'ab'", 12, "{{ n.v.replace('a', n.v) | length }}"), CHARACTERS],
  ["the same as a filter", doubled("'ab'", 12, "{{ n.v | replace('a', n.v) | length }}"), CHARACTERS],
  ["the same by a list of arguments", doubled("'ab'", 12, "{% set l = ['a', n.v] %}{{ n.v.replace(*l) | length }}"), CHARACTERS],
  ["the same by another name", doubled("'ab'", 12, "{% set f = n.v['repl' + 'ace'] %}{{ f('a', n.v) | length }}"), CHARACTERS],
  ["the same as a block's filter", doubled("'ab'", 12, "{% filter replace('a', n.v) %}{{ n.v }}{% endfilter %}"), CHARACTERS],
  ["nothing, replaced", doubled("'ab'", 12, "{{ n.v.replace('', n.v) | length }}"), CHARACTERS],
  ["a replacement at a million places", doubled("'ab'", 20, "{{ n.v.replace('a', 'b') | length }}"), PARTS],
  ["a text in millions of pieces", doubled("'a,'", 21, "{{ n.v.split(',') | length }}"), ITEMS],
  ["a text in millions of words", doubled("'a '", 21, "{{ n.v.split() | length }}"), ITEMS],
  ["a slice of a long text", doubled("'aé'", 21, "{{ n.v[::2] | length }}"), PARTS],
  ["a long text, character by character", doubled("'aé'", 21, "{{ n.v | join | length }}"), PARTS],
  ["a long separator", doubled("'ab'", 12, "{{ n.v | join(n.v) | length }}"), CHARACTERS],
  ["a long separator by name", doubled("'ab'", 12, "{{ range(10000) | join(separator=n.v) | length }}"), CHARACTERS],
  ["the same by an object of arguments", doubled("'ab'", 12, "{{ range(10000) | join(**{'separator': n.v}) | length }}"), CHARACTERS],
  ["a wide indent", "{{ 'a' | indent(500000000, true) | length }}", CHARACTERS],
  ["an indent of many lines", doubled("'a\\n'", 16, "{{ n.v | indent(10000) | length }}"), CHARACTERS],
  ["a wide indent of JSON", "{{ [1] | tojson(indent=500000000) | length }}", CHARACTERS],
  ["long separators of JSON", doubled("'ab'", 12, "{{ range(10000) | tojson(separators=(n.v, ':')) | length }}"), CHARACTERS],
  ["a list of one text many times, as text", twice(18, 10, "{{ m.v }}"), CHARACTERS],
  ["the same, joined", twice(18, 10, "{{ m.v | join | length }}"), CHARACTERS],
  ["the same, added to a text", twice(18, 10, "{{ ('' ~ m.v) | length }}"), CHARACTERS],
  ["the same, sorted: each comparison makes it anew", twice(18, 10, "{{ m.v | sort | length }}"), CHARACTERS],
  ["capital letters thrice as long", doubled("'ΐ'", 22, "{{ n.v | upper | length }}"), CHARACTERS],
  ["titles of millions of words", doubled("'a '", 21, "{{ n.v | title | length }}"), PARTS],
  [
    "namespaces that hold one another",
    `{% set n0 = namespace(v='x') %}${Array.from({ length: 40 }, (_, i) => `{% set n${i + 1} = namespace(a=n${i}, b=n${i}) %}`).join("")}{{ n40 }}`,
    NAMESPACE,
  ],
  ["a namespace as JSON", "{% set n = namespace(v='x') %}{{ n | tojson }}", NAMESPACE],
  ["a namespace added to a text", "{% set n = namespace(v='x') %}{{ '' ~ n }}", NAMESPACE],
  ["a namespace in a list", "{% set n = namespace(v='x') %}{{ [n] }}", NAMESPACE],
  ["a namespace as a macro's text", "{% set n = namespace(v='x') %}{% macro f() %}{{ n }}{% endmacro %}{{ f() }}", NAMESPACE],
  ["a long format of time", doubled("'%B'", 20, "{{ strftime_now(n.v) | length }}"), /at most 256 characters of a format of time/],
  [
    "texts made anew, each within its limit",
    doubled("'ab'", 20, `${Array.from({ length: 9 }, (_, i) => `{% set t${i} = (n.v ~ 'x') | upper %}`).join("")}`),
    /at most 16777216 characters of texts made by filters and calls/,
  ],
];

/** Of a thousand messages, so that it is not the steps that end it. */
const STEPS = 1_000_000;

function attack(): void {
  for (const [what, source, says] of ATTACKS) {
    assert.throws(
      () => new JinjaTemplate(source).render(new Map(), STEPS),
      (error: Error) => /^(?:Format|Unsupported)Error$/.test(error.name) && says.test(error.message),
      what,
    );
  }
}

/** What reads like one of them, and is none. */
const HARMLESS: readonly (readonly [source: string, text: string])[] = [
  ["{{ 'a,b'.replace(',', ' and ') }}{{ 'aXbX' | replace('X', '-', count=1) }}", "a and ba-bX"],
  ["{% set f = 'a b'.replace %}{{ f(' ', '') }}{{ 'ab'['upper']() }}", "abAB"],
  ["{{ 'a</think>b'.split('</think>')[-1] }}{{ ' a  b '.split() | join('+') }}{{ 'abc'[::-1] }}", "ba+bcba"],
  ["{{ [1, 'x'] | join(', ') }}{{ [3, 1] | sort | join }}{{ {'a': [1]} | tojson(indent=1) }}", '1, x13{\n "a": [\n  1\n ]\n}'],
  ["{% filter upper %}a{{ 'b' }}{% endfilter %}{{ 'a\nb' | indent(1, first=true) }}", "AB a\n b"],
  ["{{ [{'a': 'x'}, {'a': 'y'}] | selectattr('a', 'equalto', 'x') | map(attribute='a') | first }}", "x"],
  ["{% set n = namespace(v=1) %}{% set n.v = n.v + 1 %}{% macro f(m) %}{{ m.v }}{% endmacro %}{{ f(n) }}", "2"],
];

const isAttack: boolean = (workerData as { attacks?: boolean } | null)?.attacks === true;
const suite = isAttack ? () => {} : describe;

suite("a chat template's memory", () => {
  it("stays within 48 MB where one call would take hundreds", async () => {
    const resourceLimits = { maxOldGenerationSizeMb: 48, maxYoungGenerationSizeMb: 16 };
    const worker = new Worker(new URL(import.meta.url), { workerData: { attacks: true }, resourceLimits });
    await new Promise<void>((resolve, reject) => {
      worker.once("error", reject);
      worker.once("exit", () => resolve());
    });
  });

  it("is no concern of what a template does with short texts", () => {
    for (const [source, text] of HARMLESS) assert.equal(new JinjaTemplate(source).render(new Map()), text, source);
  });
});

if (isAttack) attack();
