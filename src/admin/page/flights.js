// The table of requests in flight. Filters and order are the server's work: it has them all, the page at most 100.

const SHOWN = 100;

class Flights {
  // changed(): the query is another one. open(flight): a row was chosen.
  constructor(changed, open) {
    this.changed = changed;
    this.open = open;
    this.sort = "age";
    this.rows = $("flights-rows");
    this.current = null;
    for (const state of STATES) $("by-state").append(h("option", { value: state }, state));
    let later;
    $("find").addEventListener("input", () => {
      clearTimeout(later);
      later = setTimeout(() => this.apply(), 250);
    });
    for (const id of ["by-state", "by-worker", "by-route"]) $(id).addEventListener("change", () => this.apply());
    $("filter").addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(later);
      this.apply();
    });
    $("clear").addEventListener("click", () => this.clear());
    for (const th of document.querySelectorAll("#flights th[data-sort]"))
      th.firstElementChild.addEventListener("click", () => {
        this.sort = th.dataset.sort;
        for (const other of document.querySelectorAll("#flights th[data-sort]"))
          attr(other, "aria-sort", other === th ? (this.sort === "age" ? "descending" : "ascending") : null);
        this.apply();
      });
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !String(getSelection()).trim()) this.choose(row);
    });
    this.rows.addEventListener("focusin", (event) => this.mark(event.target.closest("tr")));
  }

  values() {
    return { find: $("find").value.trim(), state: $("by-state").value, worker: $("by-worker").value, route: $("by-route").value };
  }

  filtered() {
    const v = this.values();
    return Boolean(v.find || v.state || v.worker || v.route);
  }

  // Is the first row the oldest of all?
  whole() {
    return !this.filtered() && this.sort === "age";
  }

  query() {
    const q = new URLSearchParams({ flights: String(SHOWN), sort: this.sort });
    for (const [name, value] of Object.entries(this.values())) if (value) q.set(name, value);
    return q.toString();
  }

  apply() {
    this.mark(null);
    $("clear").hidden = !this.filtered();
    this.changed();
  }

  set(values) {
    this.options("by-route", values.route ? [values.route] : []);
    $("find").value = values.find || "";
    $("by-state").value = values.state || "";
    $("by-worker").value = values.worker || "";
    $("by-route").value = values.route || "";
    this.apply();
  }

  clear() {
    this.set({});
    $("find").focus();
  }

  // Add the options that are new; none goes while somebody may choose it.
  options(id, values) {
    const select = $(id);
    const there = new Set([...select.options].map((o) => o.value));
    for (const value of values)
      if (!there.has(String(value))) select.append(h("option", { value }, id === "by-worker" ? "worker " + value : String(value)));
  }

  choose(row) {
    this.mark(row);
    row.querySelector("button").focus({ preventScroll: true });
    this.open(row.item);
  }

  // One row is in the order of Tab; the others are reached with j and k.
  mark(row) {
    if (this.current === row) return;
    if (this.current) this.current.querySelector("button").tabIndex = -1;
    this.current = row;
    if (row) row.querySelector("button").tabIndex = 0;
  }

  step(by) {
    const rows = [...this.rows.children];
    if (!rows.length) return;
    const focused = rows.findIndex((row) => row.contains(document.activeElement));
    const at = focused >= 0 ? focused + by : this.current && rows.includes(this.current) ? rows.indexOf(this.current) : 0;
    const row = rows[Math.max(0, Math.min(rows.length - 1, at))];
    this.mark(row);
    row.querySelector("button").focus();
    row.scrollIntoView({ block: "nearest" });
  }

  make() {
    const cell = (name, ...children) => h("td", { role: "cell", class: name }, ...children);
    const row = h("tr", { role: "row" },
      cell("age n"),
      cell("what", h("button", { type: "button", class: "open", tabindex: "-1" }, h("span", { class: "method" }), " ", h("span", { class: "path" })), h("small")),
      cell("state", h("i"), h("span"), h("small")),
      cell("user", h("span"), h("small")),
      cell("worker n"));
    const q = (selector) => row.querySelector(selector);
    row.parts = { age: q(".age"), method: q(".method"), path: q(".path"), route: q(".what small"), state: q(".state"), word: q(".state span"), waits: q(".state small"), user: q(".user span"), address: q(".user small"), worker: q(".worker") };
    return row;
  }

  update(row, f) {
    const p = row.parts;
    put(p.age, time(f.age));
    put(p.method, f.method);
    put(p.path, f.path);
    attr(p.path, "title", f.path);
    put(p.route, f.route);
    attr(p.state, "data-state", f.state);
    put(p.word, f.state + " " + time(f.in_state));
    put(p.waits, WORDS.states[f.state] || "");
    put(p.user, f.user || "nobody");
    attr(p.user, "class", f.user ? null : "no");
    put(p.address, f.address);
    put(p.worker, f.worker);
    attr(row, "data-slow", f.state === "application" && f.in_state > RULES.longRun ? "yes" : f.slow ? "told" : null);
  }

  show(s) {
    this.options("by-worker", (s.workers || []).map((w) => w.slot));
    this.options("by-route", (s.routes || []).map((r) => r.route));
    const flights = s.flights || [];
    keep(this.rows, flights, (f) => f.worker + ":" + f.pid + ":" + f.id, () => this.make(), (row, f) => this.update(row, f));
    if (!this.current || !this.current.isConnected) {
      this.current = null;
      if (this.rows.firstChild) this.mark(this.rows.firstChild);
    }
    const total = s.flights_total || 0;
    const order = { age: "oldest first", user: "by user", route: "by route", state: "by state" }[this.sort];
    let text = flights.length < total ? number(flights.length) + " of " + number(total) + ", " + order : flights.length ? number(total) + ", " + order : "";
    if (flights.length < total && !this.filtered()) text += "; filter to see the others";
    if (s.flights_unlisted) text += "; " + number(s.flights_unlisted) + " more found no record";
    put($("flights-count"), text);
    put($("flights-none"), flights.length ? "" : total ? "No request in flight fits the filter." : "Nothing is in flight.");
    $("flights-none").hidden = flights.length > 0;
  }
}
