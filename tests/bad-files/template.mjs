// Wrong chat templates.
import { concat, TEMPLATE, utf8 } from "./valid.mjs";
import { F, U } from "./words.mjs";

const jin = (s) => () => (typeof s === "string" ? utf8(s) : s);
export const TEMPLATES = [
  ["jj-empty", F, "template", "empty template", jin("")],
  ["jj-unclosed", F, "template", "a tag that never ends", jin("{% for message in messages %}{{ message")],
  ["jj-invalid-utf8", F, "template|UTF-8", "byte 0xff", jin(concat(TEMPLATE, Uint8Array.of(0xff)))],
  ["jj-one-mebibyte", F, "template|limit", "1 MiB of text", jin(TEMPLATE + "x".repeat(2 ** 20))],
  [
    "jj-long-whitespace",
    F,
    "template|limit",
    "60,000 spaces in an expression: the lexer is quadratic in them",
    jin(`{{ bos_token ${" ".repeat(60000)}}}`),
  ],
  [
    "jj-range-billion",
    F,
    "template|range|steps",
    "a loop over range(1e9): the list alone is gigabytes",
    jin("{% for i in range(1000000000) %}x{% endfor %}"),
  ],
  [
    "jj-range-nested",
    F,
    "template|steps",
    "1,000 × 1,000 × 1,000 iterations",
    jin("{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}x{% endfor %}{% endfor %}{% endfor %}"),
  ],
  ["jj-macro-recursion", F, "template", "a macro that calls itself", jin("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}")],
  [
    "jj-string-doubling",
    F,
    "template|output|limit",
    "a string doubled 28 times is printed",
    jin("{% set ns = namespace(s='xy') %}{% for i in range(28) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}"),
  ],
  [
    "jj-list-doubling",
    F,
    "template|output|limit|steps",
    "a list doubled 26 times",
    jin("{% set ns = namespace(l=[1,2]) %}{% for i in range(26) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}"),
  ],
  ["jj-tojson-indent", F, "template|output|limit", "tojson(indent=5000000)", jin("{{ messages|tojson(indent=5000000) }}")],
  ["jj-deep-nesting", F, "template|nest", "2,000 nested ifs", jin(`${"{% if true %}".repeat(2000)}x${"{% endif %}".repeat(2000)}`)],
  ["jj-deep-parens", F, "template|nest", "5,000 parentheses", jin(`{{ ${"(".repeat(5000)}1${")".repeat(5000)} }}`)],
  [
    "jj-constructor-call",
    F,
    "template",
    "''.constructor.constructor('…')(): must be undefined, and not callable",
    jin("{{ ''.constructor.constructor('globalThis.polluted = 1')() }}"),
  ],
  [
    "jj-python-escape",
    F,
    "template",
    "the Python escape through __class__ and __subclasses__",
    jin("{{ ''.__class__.__mro__[1].__subclasses__()[0]('id') }}"),
  ],
  ["jj-proto-assignment", F, "template", "assignment to messages[0].__proto__", jin("{% set messages[0].__proto__ = {'polluted': 1} %}x")],
  ["jj-unknown-filter", U, "template|filter", "a filter that does not exist", jin("{{ messages|system('id') }}")],
  ["jj-include", U, "template|include", "{% include '/etc/passwd' %}", jin("{% include '/etc/passwd' %}")],
  [
    "jj-raise-exception",
    "InputError",
    "roles must alternate",
    "the template refuses the messages by raise_exception",
    jin("{{ raise_exception('roles must alternate') }}"),
  ],
];
