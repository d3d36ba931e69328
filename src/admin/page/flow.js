// Where the requests are: the states in their order, as water before and behind the weir. And the key figures.

const STATES = Object.keys(WORDS.states);
const WAITING = new Set(["quota", "queued", "thread"]);

class Flow {
  constructor(list, choose) {
    this.cells = new Map();
    for (const state of STATES) {
      const level = h("i", { class: "level" });
      const count = h("b", {}, NONE);
      const note = h("small", {}, WORDS.states[state].split(/[:;,(]/)[0].trim());
      const button = h("button", { type: "button", "data-state": state, "aria-pressed": "false", title: WORDS.states[state], onclick: () => choose(state) },
        h("span", { class: "tank", "aria-hidden": "true" }, level), h("span", { class: "word" }, state), count, note);
      list.append(h("li", { class: state === "application" ? "behind" : "" }, button));
      this.cells.set(state, { button, level, count, note });
    }
  }

  show(s, chosen) {
    const by = s.flights_by_state || {};
    const places = (s.workers || []).reduce((sum, w) => sum + w.places, 0);
    const busy = (s.workers || []).reduce((sum, w) => sum + w.busy, 0);
    const top = Math.max(places, 4, ...STATES.map((state) => by[state] || 0));
    for (const [state, cell] of this.cells) {
      const n = by[state] || 0;
      put(cell.count, number(n));
      // The root keeps one request visible beside ten thousand.
      cell.level.style.setProperty("--full", n ? String(Math.max(0.06, Math.sqrt(n / top))) : "0");
      attr(cell.button, "data-any", n ? (state === "late" ? "bad" : WAITING.has(state) ? "wait" : "flow") : null);
      attr(cell.button, "aria-pressed", String(chosen === state));
    }
    put(this.cells.get("application").note, busy + " of " + plural(places, "thread") + " busy");
  }
}

class Figures {
  constructor(list) {
    this.nodes = {};
    const names = [["requests", "requests", "/s"], ["failed", "errors", "/s"], ["refused", "refused", "/s"], ["p50", "median"], ["p95", "95 %"], ["p99", "99 %"], ["in_flight", "in flight"], ["waits", "waiting"], ["threads", "threads busy"], ["open", "connections"]];
    for (const [key, label, unit] of names) {
      const value = h("span", {}, NONE);
      const node = h("dd", {}, value, unit ? h("small", {}, unit) : null);
      list.append(h("div", { "data-figure": key }, h("dt", {}, label), node));
      this.nodes[key] = value;
    }
  }

  // recent: points of the last 10 seconds.
  show(s, recent) {
    const last = recent[recent.length - 1] || {};
    const newest = (name) => {
      for (let i = recent.length - 1; i >= 0; i--) if (recent[i][name] != null) return recent[i][name];
      return null;
    };
    const workers = s.workers || [];
    const sum = (name) => workers.reduce((all, w) => all + (w[name] || 0), 0);
    const by = s.flights_by_state || {};
    for (const name of ["requests", "failed", "refused"]) put(this.nodes[name], rate(last[name]));
    for (const name of ["p50", "p95", "p99"]) put(this.nodes[name], time(newest(name)));
    put(this.nodes.in_flight, number(s.flights_total));
    put(this.nodes.waits, number((by.quota || 0) + (by.queued || 0) + (by.thread || 0)));
    put(this.nodes.threads, number(sum("busy")) + NBSP + "/" + NBSP + number(sum("places")));
    put(this.nodes.open, number(sum("open")));
    attr(this.nodes.failed.parentNode.parentNode, "data-tone", last.failed > 0 ? "bad" : null);
    attr(this.nodes.refused.parentNode.parentNode, "data-tone", last.refused > 0 ? "warn" : null);
    attr(this.nodes.waits.parentNode.parentNode, "data-tone", (by.thread || 0) + (by.queued || 0) > 0 ? "warn" : null);
    attr(this.nodes.threads.parentNode.parentNode, "data-tone", sum("places") && sum("busy") >= sum("places") ? "bad" : null);
  }
}
