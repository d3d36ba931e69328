// Four charts with one time axis. Their colours are those of the style, read again when the palette changes.

const HOUR = 3600;
const CHART_HEIGHT = 136;
const COUNTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000];

// A CSS colour as the canvas needs it.
function colour(name) {
  const probe = h("i");
  probe.style.color = "var(--" + name + ")";
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function faded(rgb, alpha) {
  return rgb.replace("rgb(", "rgba(").replace(")", ", " + alpha + ")");
}

const upFromZero = (u, min, max) => [0, max > 0 ? Math.max(max * 1.12, 1) : 1];
// Thousands of requests in flight do not press the threads flat.
const aroundPlaces = (u, min, max) => {
  const places = Math.max(1, ...u.data[1].filter((v) => v != null));
  return [0, Math.max(places * 1.25, Math.min(max || 0, places * 2.5))];
};
// Whole decades: times go from milliseconds to minutes.
const decades = (u, min, max) => {
  if (min == null || !(max > 0)) return [0.001, 1];
  const low = Math.floor(Math.log10(Math.max(min, 0.0001)) + 1e-9);
  return [10 ** low, 10 ** Math.max(Math.ceil(Math.log10(max) - 1e-9), low + 1)];
};
const decadeSplits = (u, axis, min, max) => {
  const all = [];
  for (let e = Math.round(Math.log10(min)); e <= Math.round(Math.log10(max)); e++) all.push(Number((10 ** e).toPrecision(3)));
  return all;
};
const decadeText = (s) => (s < 0.9 ? Number((s * 1000).toPrecision(2)) + NBSP + "ms" : s + NBSP + "s");

const CHARTS = [
  { title: "Throughput, a second", text: rate, lines: [["requests", "water", "requests", { fill: true }], ["refused", "warn", "refused", {}], ["failed", "bad", "failed", { width: 2 }]] },
  { title: "Time to answer", text: time, log: true, lines: [["p99", "bad", "99 %", {}], ["p95", "warn", "95 %", {}], ["p50", "water", "median", { width: 2 }]] },
  { title: "Waiting", text: rate, most: true, lines: [["queued", "warn", "for a place", { fill: true }], ["waiting", "bad", "for a thread", { width: 2 }]] },
  { title: "Threads", text: rate, range: aroundPlaces, lines: [["places", "soft", "there are", { dash: [4, 4] }], ["busy", "water", "busy", { fill: true }], ["in_flight", "ink", "in flight", { width: 1 }]] },
];

class Charts {
  constructor(box) {
    this.box = box;
    this.points = []; // objects, oldest first
    this.span = 600;
    this.all = CHARTS.map((c) => this.frame(c));
  }

  frame(c) {
    const values = c.lines.map(([, tone, label]) => {
      const value = h("b", {}, NONE);
      return { value, node: h("span", { class: "key", "data-tone": tone }, h("i"), label + " ", value) };
    });
    const room = h("div", { class: "plot", role: "img" });
    this.box.append(h("figure", {}, h("figcaption", {}, h("strong", {}, c.title), h("span", { class: "keys" }, ...values.map((v) => v.node))), room));
    return { c, room, values: values.map((v) => v.value), plot: null };
  }

  // Make the plots, with the colours of now.
  draw() {
    if (!this.watched) new ResizeObserver(() => this.resize()).observe(this.box);
    this.watched = true;
    const tones = {};
    for (const name of ["water", "warn", "bad", "soft", "ink", "line"]) tones[name] = colour(name);
    const grid = { stroke: tones.line, width: 1 };
    for (const one of this.all) {
      if (one.plot) one.plot.destroy();
      const log = one.c.log;
      const font = "11px " + getComputedStyle(document.body).fontFamily;
      one.plot = new uPlot(
        {
          width: Math.max(one.room.clientWidth, 120),
          height: CHART_HEIGHT,
          legend: { show: false },
          padding: [8, 16, 0, 0],
          cursor: { y: false, points: { size: 5 }, drag: { x: false, y: false }, sync: { key: "weir" } },
          scales: {
            x: { range: () => this.window() },
            y: log ? { distr: 3, log: 10, range: decades } : { range: one.c.range || upFromZero },
          },
          axes: [
            { stroke: tones.soft, font, size: 24, gap: 4, grid: { show: false }, ticks: { show: false }, space: 70, values: (u, at) => at.map((t) => (u.valToPos(t, "x") < 18 ? "" : clock(t).slice(0, 5))), incrs: [60, 120, 300, 600, 900, 1800] },
            log
              ? { stroke: tones.soft, font, size: 50, gap: 4, grid, ticks: { show: false }, splits: decadeSplits, values: (u, at) => at.map(decadeText), filter: (u, at) => at }
              : { stroke: tones.soft, font, size: 50, gap: 4, grid, ticks: { show: false }, space: 32, incrs: COUNTS, values: (u, at) => at.map((v) => (v >= 10000 ? v / 1000 + "k" : String(v))) },
          ],
          series: [
            {},
            ...one.c.lines.map(([, tone, label, how]) => ({
              label,
              stroke: tones[tone],
              width: how.width || 1.5,
              dash: how.dash,
              fill: how.fill ? faded(tones[tone], 0.16) : undefined,
              points: { size: 4 },
              spanGaps: false,
            })),
          ],
          hooks: { setCursor: [() => this.keys(one)] },
        },
        this.data(one.c),
        one.room,
      );
      this.keys(one);
    }
  }

  window() {
    const end = this.points.length ? this.points[this.points.length - 1].at : Date.now() / 1000;
    return [end - this.span, end];
  }

  // 120 steps of the time shown: means, or the most where peaks matter. A line for each second would be noise.
  data(c) {
    const [begin] = this.window();
    const step = this.span / 120;
    const at = [];
    const rows = c.lines.map(() => []);
    let seen = [];
    let slot = null;
    const end = () => {
      if (!seen.length) return;
      at.push(seen[seen.length - 1].at);
      c.lines.forEach(([name], i) => {
        const values = seen.map((p) => p[name]).filter((v) => v != null && (!c.log || v > 0));
        rows[i].push(!values.length ? null : c.most ? Math.max(...values) : values.reduce((a, b) => a + b, 0) / values.length);
      });
      seen = [];
    };
    for (const p of this.points) {
      if (p.at < begin - step) continue;
      const mine = Math.floor(p.at / step);
      if (mine !== slot) {
        const before = seen.length ? seen[seen.length - 1].at : null;
        end();
        // A break is a gap, not a slope.
        if (before != null && p.at - before > 30 + step) {
          at.push(before + 1);
          for (const row of rows) row.push(null);
        }
        slot = mine;
      }
      seen.push(p);
    }
    end();
    return [at, ...rows];
  }

  // What the legend says: the point under the cursor, or the newest.
  keys(one) {
    const u = one.plot;
    if (!u) return;
    const at = u.cursor.idx;
    const last = this.points[this.points.length - 1] || {};
    one.values.forEach((node, i) => put(node, one.c.text(at != null ? u.data[i + 1][at] : last[one.c.lines[i][0]])));
    attr(one.room, "aria-label", one.c.title + ": " + one.c.lines.map(([, , label], i) => label + " " + one.values[i].textContent).join(", "));
  }

  load(history) {
    const name = (row) => Object.fromEntries(history.columns.map((column, i) => [column, row[i]]));
    const seconds = (history.seconds || []).map(name);
    const first = seconds.length ? seconds[0].at : Infinity;
    this.points = (history.steps || []).map(name).filter((p) => p.at < first).concat(seconds);
    this.show();
  }

  add(point) {
    const last = this.points[this.points.length - 1];
    if (!point.at) return;
    // The server's clock was set back: what was before has no place on the axis any more.
    if (last && point.at < last.at - 5) this.points = [];
    else if (last && point.at <= last.at) return;
    this.points.push(point);
    while (this.points.length && this.points[0].at < point.at - HOUR - 60) this.points.shift();
    this.show();
  }

  lately(seconds) {
    const last = this.points[this.points.length - 1];
    return last ? this.points.filter((p) => p.at > last.at - seconds) : [];
  }

  show() {
    for (const one of this.all) {
      if (one.plot) one.plot.setData(this.data(one.c));
      this.keys(one);
    }
  }

  setSpan(seconds) {
    this.span = seconds;
    this.show();
  }

  resize() {
    for (const one of this.all) {
      const width = Math.max(one.room.clientWidth, 120);
      if (one.plot && one.plot.width !== width) one.plot.setSize({ width, height: CHART_HEIGHT });
    }
  }
}
