// The tables below: queues, limits, routes, what was slow or failed, settings.

class Tables {
  // act: {filter(values), kept(flight)}
  constructor(act) {
    this.act = act;
    $("settings-find").addEventListener("input", () => this.settings(this.last || []));
  }

  row(name, items, keyOf, columns) {
    keep($(name + "-rows"), items, keyOf,
      () => {
        const cells = columns.map(([kind]) => h("td", { class: kind }));
        const row = h("tr", {}, ...cells);
        row.cells_ = cells;
        return row;
      },
      (row, item) => columns.forEach(([, show], i) => show(row.cells_[i], item)));
    const none = $(name + "-none");
    if (none) none.hidden = items.length > 0;
  }

  show(s) {
    const queues = s.queues || [];
    this.row("queues", queues, (q) => q.route + " " + q.user, [
      ["", (td, q) => this.link(td, q.route, () => ({ route: td.parentNode.item.route, state: "queued" }))],
      ["", (td, q) => put(td, q.user || "nobody")],
      ["n", (td, q) => put(td, number(q.waiting))],
    ]);
    put($("queues-count"), queues.length ? plural(queues.reduce((sum, q) => sum + q.waiting, 0), "request") + " of " + plural(new Set(queues.map((q) => q.user)).size, "user") : "");

    const refusals = s.refusals || [];
    this.row("limits", refusals, (r) => r.route + " " + r.reason + " " + r.user + " " + r.address, [
      ["", (td, r) => this.two(td, r.user || "nobody", r.address)],
      ["word", (td, r) => {
        put(td, r.reason);
        attr(td, "title", WORDS.refusals[r.reason]);
      }],
      ["", (td, r) => put(td, r.route)],
      ["n", (td, r) => put(td, number(r.count))],
      ["n", (td, r) => put(td, ago(s.now - r.last))],
    ]);
    const keys = (s.limits && s.limits.rate_keys) || null;
    put($("limits-count"), keys ? "rates are kept of " + plural(keys.users, "user") + " and " + plural(keys.addresses, "address", "addresses") + (keys.evicted ? "; " + number(keys.evicted) + " forgotten early, for want of room" : "") : "");

    this.row("routes", s.routes || [], (r) => r.route, [
      ["name", (td, r) => this.link(td, r.route, () => ({ route: td.parentNode.item.route }), { "*": "all that no route is about", "/-/": "the server's own answers" }[r.route])],
      ["n", (td, r) => put(td, number(r.requests))],
      ["n", (td, r) => put(td, number(r.in_flight))],
      ["answers", (td, r) => this.answers(td, r.statuses || {})],
      ["n", (td, r) => this.three(td, r.total)],
      ["n", (td, r) => this.three(td, r.queue)],
      ["n", (td, r) => this.three(td, r.application)],
      ["gate", (td, r) => {
        put(td, r.gate ? number(r.gate.running) + " of " + r.gate.concurrency + (r.gate.waiting ? ", " + plural(r.gate.waiting, "waits", "wait") + " (" + time(r.gate.head_age) + ")" : "") : NONE);
        attr(td, "data-tone", r.gate && r.gate.waiting ? "warn" : null);
      }],
      ["limits", (td, r) => put(td, (r.limits || []).join(" · ") || NONE)],
      ["refused", (td, r) => put(td, Object.entries(r.refused || {}).map(([reason, n]) => reason + " " + number(n)).concat(Object.entries(r.dry_run || {}).map(([reason, n]) => "dry run: " + reason + " " + number(n))).join(" · ") || NONE)],
    ]);

    for (const name of ["slowest", "failed"])
      this.row(name, s[name] || [], (f) => f.worker + ":" + f.pid + ":" + f.id, [
        ["n", (td, f) => put(td, time(f.total))],
        ["", (td, f) => this.request(td, f)],
        ["", (td, f) => {
          put(td, (f.status || "none") + (f.refusal ? " " + f.refusal : "") + (f.cut ? " " + f.cut : ""));
          attr(td, "data-tone", f.status >= 500 || f.cut ? "bad" : null);
          attr(td, "title", WORDS.refusals[f.refusal] || WORDS.cuts[f.cut]);
        }],
        ["n", (td, f) => put(td, ago(s.now - f.at - f.total))],
      ]);
    this.settings(s.settings || []);
  }

  three(td, t) {
    this.two(td, t ? time(t.p50) : NONE, t ? time(t.p95) + " · " + time(t.p99) : "");
  }

  two(td, text, small) {
    if (!td.firstChild) td.append(h("span"), h("small"));
    put(td.firstChild, text);
    put(td.lastChild, small || "");
  }

  link(td, text, values, title) {
    if (!td.firstChild) td.append(h("button", { type: "button", class: "open", title, onclick: () => this.act.filter(values()) }));
    put(td.firstChild, text);
  }

  request(td, f) {
    if (!td.firstChild) {
      const open = () => this.act.kept(td.parentNode.item);
      td.append(h("button", { type: "button", class: "open", onclick: open }), h("small"));
    }
    put(td.firstChild, f.method + " " + f.path);
    put(td.lastChild, f.user || "nobody");
  }

  // Counts by hundreds, each status in the title.
  answers(td, statuses) {
    const sums = {};
    for (const [status, n] of Object.entries(statuses)) {
      const hundred = status === "none" ? "none" : status[0] + "xx";
      sums[hundred] = (sums[hundred] || 0) + n;
    }
    keep(td, Object.entries(sums).filter(([, n]) => n > 0), ([name]) => name, ([name]) => h("span", { class: "chip", "data-hundred": name }), (node, [name, n]) => put(node, name + " " + number(n)));
    attr(td, "title", Object.entries(statuses).map(([status, n]) => status + ": " + n).join(", "));
  }

  settings(all) {
    this.last = all;
    const find = $("settings-find").value.trim().toLowerCase();
    // What somebody has set stands first.
    const isDefault = (one) => /^(the )?default$/.test(one.source);
    const some = [...all].sort((a, b) => isDefault(a) - isDefault(b)).filter((one) => !find || (one.name + " " + one.value + " " + one.source).toLowerCase().includes(find));
    this.row("settings", some, (one) => one.name, [
      ["name mono", (td, one) => put(td, one.name)],
      ["mono", (td, one) => put(td, one.value === "" ? NONE : one.value)],
      ["source", (td, one) => {
        put(td, one.source);
        attr(td, "data-default", isDefault(one) ? "yes" : null);
      }],
    ]);
    put($("settings-count"), find ? some.length + " of " + all.length : plural(all.length, "setting"));
  }
}
