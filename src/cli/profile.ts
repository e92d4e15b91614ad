// The profile of `lfm2 bench --profile`: what each kernel took against what the machine could do, as a table and as a picture. Knows no model.
import type { KernelTime } from "../kernels/profile.ts";
import type { Ceilings } from "./ceilings.ts";

/** One kernel's share of a step. */
export interface ProfileRow {
  readonly kernel: string;
  /** What the model uses it for, with the matrix's shape; empty where the kernel says it all. */
  readonly part: string;
  /** Of one step (a whole prompt, or one generated token). */
  readonly calls: number;
  readonly us: number;
  /** Of the step's time. */
  readonly share: number;
  readonly gbps: number;
  readonly gmacs: number;
  /** The time that its bytes or its products need at the least, against the time that it took. */
  readonly roof: number;
}

/** A step by kernels, the longest first, and again by kind of kernel. */
export interface Profile {
  readonly us: number;
  readonly kernels: readonly ProfileRow[];
  readonly kinds: readonly ProfileRow[];
}

/** Operands of everything but products and attention are this much at most: they stay in the second cache. */
const NEAR_BYTES = 1 << 18;

const isQuantized = (kernel: string): boolean => kernel.startsWith("matmul q");
const streams = (kernel: string): boolean => kernel.startsWith("matmul") || kernel.startsWith("attention");

/** ms that the machine needs at the least */
function roofMs({ kernel, bytes, macs }: KernelTime, ceilings: Ceilings, stepBytes: number): number {
  const read = ceilings.read(streams(kernel) ? stepBytes : NEAR_BYTES);
  const rate = macs === 0 ? Number.POSITIVE_INFINITY : isQuantized(kernel) ? ceilings.dot : ceilings.muladd;
  return Math.max(bytes / read, macs / rate) / 1e6;
}

/**
 * @param times of `steps` steps
 * @param stepBytes what a step reads of weights and cache: the memory over which the roof's bandwidth is measured
 */
export function profileOf(times: readonly KernelTime[], steps: number, ceilings: Ceilings, stepBytes: number): Profile {
  const total = times.reduce((sum, { ms }) => sum + ms, 0);
  const timed = times.map((time) => ({ ...time, least: roofMs(time, ceilings, stepBytes) }));
  const row = ({ kernel, part, calls, ms, bytes, macs, least }: (typeof timed)[number]): ProfileRow => ({
    kernel,
    part,
    calls: calls / steps,
    us: (1000 * ms) / steps,
    share: ms / total,
    gbps: bytes / ms / 1e6,
    gmacs: macs / ms / 1e6,
    roof: least / ms,
  });
  const kinds = new Map<string, (typeof timed)[number]>();
  for (const time of timed) {
    const sum = kinds.get(time.kernel) ?? { kernel: time.kernel, part: "", calls: 0, ms: 0, bytes: 0, macs: 0, least: 0 };
    const add = (name: "calls" | "ms" | "bytes" | "macs" | "least"): number => sum[name] + time[name];
    kinds.set(time.kernel, { ...sum, calls: add("calls"), ms: add("ms"), bytes: add("bytes"), macs: add("macs"), least: add("least") });
  }
  const longest = (rows: ProfileRow[]): ProfileRow[] => rows.sort((a, b) => b.us - a.us);
  return { us: (1000 * total) / steps, kernels: longest(timed.map(row)), kinds: longest([...kinds.values()].map(row)) };
}

const rate = (x: number): string => (x === 0 ? "–" : x.toFixed(x < 10 ? 2 : 1));
const duration = (us: number): string => (us < 10_000 ? `${Math.round(us)} µs` : `${(us / 1000).toFixed(1)} ms`);
const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
const figures = (r: ProfileRow): string[] => [
  String(Math.round(r.calls)),
  r.us.toFixed(r.us < 100 ? 1 : 0),
  percent(r.share),
  rate(r.gbps),
  rate(r.gmacs),
  r.roof === 0 ? "–" : percent(r.roof),
];

/** The ceilings are those of one thread: several may pass them. */
const roofOf = (threads: number): string => (threads > 1 ? "of 1 thread's roof" : "of roof");

function table(title: string, rows: readonly ProfileRow[], threads: number): string {
  const head = [title, "calls", "µs", "of step", "GB/s", "GMAC/s", roofOf(threads)];
  const cells = [head, ...rows.map((r) => [r.part ? `${r.kernel}  ${r.part}` : r.kernel, ...figures(r)])];
  const widths = head.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)));
  const line = (texts: readonly string[]): string =>
    texts.map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0))).join("  ");
  return `${cells.map(line).join("\n")}\n`;
}

type Profiles = Readonly<Record<"prefill" | "decode", Profile>>;

/** @returns tables of both steps */
export function printProfile({ prefill, decode }: Profiles, threads: number): string {
  const one = (title: string, { us, kernels, kinds }: Profile): string =>
    `\n${table(`${title}, ${duration(us)}`, kinds, threads)}\n${table("part by part", kernels, threads)}`;
  return one("decode, one token", decode) + one("prefill, the prompt", prefill);
}

const escaped = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const ROW = 22;
const LABELS = 290;
const BARS = 300;
const FIGURES = [60, 66, 66, 72, 72] as const;
const WIDTH = LABELS + BARS + FIGURES.reduce((a, b) => a + b, 0) + 40;

const STYLE = `text{font:12px system-ui,sans-serif;fill:#1f2328}.h{font-weight:600;font-size:14px}.s{fill:#656d76}.n{text-anchor:end;font-variant-numeric:tabular-nums}
.b{fill:#dce6f2}.f{fill:#2f6fb5}.bg{fill:#fff}.l{stroke:#d0d7de}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#8d96a0}.b{fill:#26384d}.f{fill:#5c9de0}.bg{fill:#0d1117}.l{stroke:#30363d}}`;

/** Bars of one step from `top` on: their length is the time, the dark part of it what the machine needs at the least. */
function bars(title: string, { us, kernels }: Profile, top: number, threads: number): string {
  const most = Math.max(...kernels.map((r) => r.share));
  const columns = FIGURES.map((_, i) => 20 + LABELS + BARS + FIGURES.slice(0, i + 1).reduce((a, b) => a + b, 0));
  const head = ["µs", "of step", "GB/s", "GMAC/s", threads > 1 ? "of 1 thr." : "of roof"].map(
    (text, i) => `<text class="s n" x="${columns[i]}" y="${top + 22}">${text}</text>`,
  );
  const out = [`<text class="h" x="20" y="${top}">${escaped(title)}: ${duration(us)}</text>`, ...head];
  out.push(`<line class="l" x1="20" x2="${WIDTH - 20}" y1="${top + 28}" y2="${top + 28}"/>`);
  kernels.forEach((r, i) => {
    const y = top + 32 + i * ROW;
    const width = (BARS - 10) * (r.share / most);
    const label = r.part ? `${r.part}` : r.kernel;
    const [, ...rest] = figures(r);
    out.push(
      `<text x="20" y="${y + 15}">${escaped(label)}${r.part ? `<tspan class="s" dx="6">${escaped(r.kernel)}</tspan>` : ""}</text>`,
      `<rect class="b" x="${20 + LABELS}" y="${y + 3}" width="${width.toFixed(1)}" height="${ROW - 6}" rx="2"/>`,
      `<rect class="f" x="${20 + LABELS}" y="${y + 3}" width="${(width * Math.min(1, r.roof)).toFixed(1)}" height="${ROW - 6}" rx="2"/>`,
      ...rest.map((text, c) => `<text class="n" x="${columns[c]}" y="${y + 15}">${text}</text>`),
    );
  });
  return out.join("\n");
}

interface About {
  readonly model: string;
  readonly dtypes: readonly string[];
  readonly variant: string;
  readonly cpu: string;
  readonly runtime: string;
  readonly prefill: number;
  readonly context: number;
  readonly threads: number;
}

/** @returns an SVG of both steps, for light and dark pages */
export function drawProfile({ prefill, decode }: Profiles, about: About): string {
  const first = 74;
  const second = first + 32 + decode.kernels.length * ROW + 44;
  const height = second + 32 + prefill.kernels.length * ROW + 20;
  const what = `${about.model}, ${about.dtypes.join("+")}, ${about.variant} kernels, ${about.threads} ${about.threads === 1 ? "thread" : "threads"}; ${about.cpu}, ${about.runtime}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">
<title>Time by kernel</title>
<style>${STYLE}</style>
<rect class="bg" width="${WIDTH}" height="${height}"/>
<text class="s" x="20" y="26">${escaped(what)}</text>
<text class="s" x="20" y="44">A bar is a kernel's time; its dark part is what memory or arithmetic would need at the least${about.threads > 1 ? " with one thread" : ""}.</text>
${bars(`One token at context ${about.context}`, decode, first, about.threads)}
${bars(`A prompt of ${about.prefill} tokens`, prefill, second, about.threads)}
</svg>
`;
}
