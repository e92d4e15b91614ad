// Charts by hand: a roofline with logarithmic axes, grouped bars. They follow the page's light or dark scheme.

const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const COLOURS = ["#2f6fb5", "#d9822b", "#2e8b57", "#a8467e", "#7a6fd0", "#8a7a3c"];
const DARK = ["#6aa9ec", "#f0a75c", "#63c08c", "#df85b6", "#a9a1f0", "#c4b46a"];

const style = `text{font:12px system-ui,sans-serif;fill:#1f2328}.h{font-weight:600;font-size:15px}.s{fill:#656d76}.m{text-anchor:middle}.e{text-anchor:end}
.bg{fill:#fff}.g{stroke:#e6e9ed}.a{stroke:#8c959f}.r{stroke:#57606a;fill:none;stroke-width:1.5}.d{stroke-dasharray:5 4}
${COLOURS.map((c, i) => `.c${i}{fill:${c};stroke:${c}}`).join("")}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#8d96a0}.bg{fill:#0d1117}.g{stroke:#21262d}.a{stroke:#6e7681}.r{stroke:#b1bac4}
${DARK.map((c, i) => `.c${i}{fill:${c};stroke:${c}}`).join("")}}`;

const page = (title, width, height, body) =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">\n<title>${escaped(title)}</title>\n<style>${style}</style>\n<rect class="bg" width="${width}" height="${height}"/>\n${body.join("\n")}\n</svg>\n`;

const heading = (title, about) => [
  `<text class="h" x="24" y="30">${escaped(title)}</text>`,
  `<text class="s" x="24" y="50">${escaped(about)}</text>`,
];

const text = (x, y, what, kind = "") => `<text class="${kind}" x="${x.toFixed(1)}" y="${y.toFixed(1)}">${escaped(what)}</text>`;
const line = (x1, y1, x2, y2, kind) =>
  `<line class="${kind}" x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"/>`;

function legend(names, x, y) {
  return names.flatMap((name, i) => [
    `<rect class="c${i % COLOURS.length}" x="${x}" y="${y + 20 * i - 10}" width="11" height="11" rx="2"/>`,
    text(x + 18, y + 20 * i, name),
  ]);
}

/**
 * @param points { x: multiply-adds a byte, y: GMAC/s, series, title }
 * @param slopes [name, GB/s]; `flats` [name, GMAC/s]
 */
export function roofline({ title, about, points, slopes, flats }) {
  const [width, height, left, right, top, bottom] = [980, 600, 70, 190, 80, 60];
  const [x0, x1] = [Math.min(0.1, ...points.map((p) => p.x)) / 1.2, Math.max(500, ...points.map((p) => p.x)) * 1.3];
  const y1 = Math.max(...flats.map(([, y]) => y), ...points.map((p) => p.y)) * 1.6;
  const y0 = Math.min(...points.map((p) => p.y)) / 1.6;
  const X = (x) => left + ((width - left - right) * Math.log(x / x0)) / Math.log(x1 / x0);
  const Y = (y) => height - bottom - ((height - top - bottom) * Math.log(y / y0)) / Math.log(y1 / y0);
  const body = heading(title, about);
  const ticks = (from, to) => {
    const out = [];
    for (let decade = 10 ** Math.floor(Math.log10(from)); decade <= to; decade *= 10)
      for (const step of [1, 2, 5]) if (decade * step >= from && decade * step <= to) out.push(Number((decade * step).toPrecision(1)));
    return out;
  };
  for (const x of ticks(x0, x1)) body.push(line(X(x), top, X(x), height - bottom, "g"), text(X(x), height - bottom + 18, x, "s m"));
  for (const y of ticks(y0, y1)) body.push(line(left, Y(y), width - right, Y(y), "g"), text(left - 8, Y(y) + 4, y, "s e"));
  body.push(line(left, height - bottom, width - right, height - bottom, "a"), line(left, top, left, height - bottom, "a"));
  body.push(text((left + width - right) / 2, height - 18, "multiply-adds a byte that is read or written", "s m"));
  body.push(`<text class="s m" transform="translate(20 ${(top + height - bottom) / 2}) rotate(-90)">GMAC/s</text>`);
  const most = Math.max(...flats.map(([, y]) => y));
  for (const [name, gbps] of slopes) {
    const from = Math.max(x0, y0 / gbps);
    const to = most / gbps;
    body.push(line(X(from), Y(from * gbps), X(to), Y(most), "r"));
    const at = Math.max(from, to * 0.45);
    const angle = (Math.atan2(Y(at * gbps) - Y(at * 2 * gbps), X(at * 2) - X(at)) * -180) / Math.PI;
    body.push(
      `<text class="s m" transform="translate(${X(at).toFixed(1)} ${(Y(at * gbps) - 6).toFixed(1)}) rotate(${angle.toFixed(1)})">${escaped(`${name} ${gbps.toFixed(0)} GB/s`)}</text>`,
    );
  }
  const widest = Math.max(...slopes.map(([, gbps]) => gbps));
  for (const [name, y] of flats) {
    body.push(line(X(Math.max(x0, y / widest)), Y(y), width - right, Y(y), y === most ? "r" : "r d"));
    body.push(text(width - right + 6, Y(y) + 4, `${name} ${y.toFixed(0)}`, "s"));
  }
  const series = [...new Set(points.map((p) => p.series))];
  for (const p of points)
    body.push(
      `<circle class="c${series.indexOf(p.series) % COLOURS.length}" fill-opacity=".75" cx="${X(p.x).toFixed(1)}" cy="${Y(p.y).toFixed(1)}" r="4.5"><title>${escaped(p.title)}</title></circle>`,
    );
  body.push(...legend(series, width - right + 16, height - bottom - 20 * series.length));
  return page(title, width, height, body);
}

/**
 * Bars in groups.
 * @param groups { name, values: value for each of `series`, undefined where there is none }
 */
export function bars({ title, about, unit, series, groups }) {
  const [barWidth, gap, left, top, bottom, height] = [26, 34, 70, 84 + 20 * series.length, 46, 400 + 20 * series.length];
  const present = groups.map((g) => series.map((_, i) => i).filter((i) => g.values[i] !== undefined));
  const width = Math.max(560, left + 30 + present.reduce((sum, list) => sum + list.length * barWidth + gap, 0));
  const most = Math.max(...groups.flatMap((g) => g.values.filter((v) => v !== undefined))) * 1.08;
  const step =
    [1, 2, 5]
      .flatMap((s) => [0.1, 1, 10, 100, 1000].map((d) => s * d))
      .sort((a, b) => a - b)
      .find((s) => most / s <= 8) ?? most / 5;
  const Y = (v) => height - bottom - ((height - top - bottom) * v) / most;
  const body = [...heading(title, about), ...legend(series, 24, 76)];
  for (let v = 0; v <= most; v += step)
    body.push(line(left, Y(v), width - 24, Y(v), v === 0 ? "a" : "g"), text(left - 8, Y(v) + 4, Number(v.toFixed(1)), "s e"));
  body.push(text(left - 8, top - 10, unit, "s e"));
  let x = left + gap / 2;
  groups.forEach((g, n) => {
    const from = x;
    for (const i of present[n]) {
      const v = g.values[i];
      body.push(
        `<rect class="c${i % COLOURS.length}" x="${(x + 2).toFixed(1)}" y="${Y(v).toFixed(1)}" width="${barWidth - 4}" height="${(height - bottom - Y(v)).toFixed(1)}" rx="2"><title>${escaped(`${series[i]}, ${g.name}: ${v.toFixed(1)}`)}</title></rect>`,
        `<text class="s m" style="font-size:10px" x="${(x + barWidth / 2).toFixed(1)}" y="${(Y(v) - 4).toFixed(1)}">${v < 10 ? v.toFixed(1) : v.toFixed(0)}</text>`,
      );
      x += barWidth;
    }
    body.push(text((from + x) / 2, height - bottom + 18, g.name, "m"));
    x += gap;
  });
  return page(title, width, height, body);
}
