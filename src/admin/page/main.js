// All together: data in, page out.

const LEVELS = { ok: "#0f766e", note: "#0f766e", warn: "#b45309", bad: "#b91c1c", wait: "#6b7280", lost: "#6b7280" };
const WATCH_MS = 5000;

// Before anything is painted, so that no other palette flashes up.
const wanted = remember("weir-theme");
if (wanted === "dark" || wanted === "light") document.documentElement.dataset.theme = wanted;

class App {
  constructor() {
    this.status = null;
    this.oldest = null;
    this.crashed = null;
    this.crashedAt = null;
    this.told = "";
    this.charts = new Charts($("charts"));
    this.flow = new Flow($("flow"), (state) => this.filter({ ...this.flights.values(), state: $("by-state").value === state ? "" : state }));
    this.figures = new Figures($("figures"));
    this.panel = new Panel($("panel"));
    this.panel.pids = (slot) => ((this.status.workers || []).find((w) => w.slot === slot) || {}).pid;
    this.flights = new Flights(() => this.ask(), (f) => this.panel.request(f));
    const act = { filter: (values) => this.filter(values), stacks: (slot) => this.panel.stacks(slot), kept: (f) => this.panel.kept(f) };
    this.tables = new Tables(act);
    this.workers = new Workers(act);
    this.act = act;
    this.link = new Link({
      status: (s) => this.take(s),
      point: (p) => this.charts.add(p),
      history: (all) => this.charts.load(all),
      state: (word, text) => this.linked(word, text),
    });
    this.buttons();
    this.keys();
    this.shownFor = this.flights.query();
    this.link.query = this.shownFor;
    document.body.dataset.built = "yes";
  }

  start() {
    this.charts.draw();
    document.addEventListener("visibilitychange", () => this.seen());
    setInterval(() => this.tick(), 1000);
    if (document.hidden) this.link.pause("nobody looks");
    else this.link.open(this.shownFor);
  }

  // ---- data ----

  take(s) {
    // What a brief one leaves out stays as it was.
    this.status = { ...this.status, ...s };
    if (this.crashed != null && s.processes && s.processes.crashed > this.crashed) this.crashedAt = s.now;
    if (s.processes) this.crashed = s.processes.crashed;
    if (this.shownFor === this.flights.query() && this.flights.whole()) this.oldest = this.first(s.flights);
    this.show();
  }

  first(flights) {
    return (flights || []).filter((f) => f.state === "application").reduce((a, b) => (a && a.in_state >= b.in_state ? a : b), null);
  }

  ask() {
    this.shownFor = this.flights.query();
    this.flow.show(this.status || {}, $("by-state").value);
    if (this.link.state !== "paused") this.link.open(this.shownFor);
    else this.link.query = this.shownFor;
  }

  // A filtered table does not show the oldest of all: ask for it, so that the headline stays true.
  async watch() {
    if (this.flights.whole() || this.link.state !== "live") return;
    try {
      const answer = await fetch("status.json?flights=20&state=application&brief=yes", { cache: "no-store" });
      if (answer.ok) this.oldest = this.first((await answer.json()).flights);
    } catch {
      // The link tells of it.
    }
  }

  filter(values) {
    this.flights.set(values);
    $("requests").scrollIntoView({ block: "start" });
    $("find").focus({ preventScroll: true });
  }

  // ---- what is seen ----

  show() {
    const s = this.status;
    const recent = this.charts.lately(10);
    const d = diagnose(s, { points: this.charts.lately(60), oldest: this.oldest, crashedAt: this.crashedAt, p99: this.newest(recent, "p99") });
    this.diagnosis = d;
    this.headline(d);
    this.flow.show(s, $("by-state").value);
    this.figures.show(s, recent);
    this.flights.show(s);
    this.tables.show(s);
    this.workers.show(s);
    this.place();
  }

  newest(points, name) {
    for (let i = points.length - 1; i >= 0; i--) if (points[i][name] != null) return points[i][name];
    return null;
  }

  place() {
    const s = this.status;
    if (!s) return;
    put($("place"), location.host + " · weir " + s.weir + " · up " + time(s.now - s.started) + (s.ready === false ? " · not ready" : " · ready"));
    put($("foot"), "Data of " + clock(s.now) + ". Requests since the start: " + number((s.totals || {}).requests) + ", refused " + number((s.totals || {}).refused) + ", left by their clients " + number((s.totals || {}).abandoned) + ".");
  }

  headline(d) {
    const steps = d.problems;
    put($("headline"), d.text);
    keep($("steps"), steps, (p) => p.kind + p.text.replace(/\d/g, "").length, () => h("li", {}, h("span"), h("button", { type: "button", onclick: (event) => this.go(event.currentTarget.parentNode.item.act) })), (li, p) => {
      attr(li, "data-level", p.level);
      put(li.firstChild, steps.indexOf(p) < 3 ? p.hint : sentence(p.text) + " " + p.hint);
      li.lastChild.hidden = !p.act;
      if (p.act) put(li.lastChild, p.act.label);
    });
    this.level(d.level, d.level === "ok" ? "all is well" : plural(steps.length, "problem"));
    // Said aloud when it is another matter, not whenever a number moves.
    const matter = d.level + steps.map((p) => p.kind).join();
    if (matter !== this.told) put($("said"), d.text);
    this.told = matter;
  }

  level(level, word) {
    if (document.body.dataset.level !== level || !this.icon) {
      document.body.dataset.level = level;
      this.icon = LEVELS[level];
      $("icon").href = "data:image/svg+xml," + encodeURIComponent('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="' + LEVELS[level] + '"/><path d="M2 5h6v6h6" fill="none" stroke="#fff" stroke-width="2"/></svg>');
    }
    document.title = word + " · weir " + location.host;
  }

  go(act) {
    if (!act) return;
    if (act.stacks != null) this.panel.stacks(act.stacks);
    else if (act.request) this.panel.request({ ...this.oldest, ...((this.status.flights || []).find((f) => f.worker === act.request.worker && f.id === act.request.id) || {}) });
    else if (act.filter) this.filter(act.filter);
    else if (act.section) {
      $(act.section).scrollIntoView({ block: "start" });
      const heading = $(act.section).querySelector("h2");
      heading.tabIndex = -1;
      heading.focus({ preventScroll: true });
    }
  }

  linked(word, text) {
    document.body.dataset.link = word;
    this.said = text;
    attr($("pause"), "aria-pressed", String(word === "paused"));
    put($("pause"), word === "paused" ? "Go on" : "Pause");
    if (word === "live" && this.status) this.headline(this.diagnosis);
    this.tick();
  }

  tick() {
    const word = this.link ? this.link.state : "connecting";
    const since = this.link && this.link.lostAt ? (Date.now() - this.link.lostAt) / 1000 : 0;
    put($("link-text"), word === "lost" ? "lost " + time(Math.floor(since)) : word);
    if (word === "lost") {
      put($("headline"), this.status ? "The connection to the server is lost since " + time(Math.floor(since)) + ". What is below is of " + clock(this.status.now) + "." : "The server does not answer.");
      this.level("lost", "connection lost");
    } else if (word === "refused") {
      put($("headline"), this.said);
      this.level("lost", "not let in");
    }
    if (word === "lost" || word === "refused") {
      keep($("steps"), [], String, null, null);
      if (this.told !== word) put($("said"), $("headline").textContent);
      this.told = word;
    }
    if (Date.now() - (this.watched || 0) >= WATCH_MS) {
      this.watched = Date.now();
      this.watch();
    }
  }

  // Nobody looks: nothing is asked.
  seen() {
    if (document.hidden) {
      if (this.link.state === "paused") return;
      this.link.pause("nobody looks");
      this.hidden = true;
    } else if (this.hidden) {
      this.hidden = false;
      this.link.open(this.flights.query());
    }
  }

  // ---- controls ----

  togglePause() {
    if (this.link.state === "paused") this.link.open(this.flights.query());
    else this.link.pause("by hand");
  }

  isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  toggleTheme() {
    const theme = this.isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    remember("weir-theme", theme);
    this.themed();
  }

  themed() {
    put($("theme"), this.isDark() ? "Light" : "Dark");
    this.charts.draw();
  }

  buttons() {
    $("pause").addEventListener("click", () => this.togglePause());
    $("theme").addEventListener("click", () => this.toggleTheme());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.themed());
    put($("theme"), this.isDark() ? "Light" : "Dark");
    $("keys-open").addEventListener("click", () => $("keys").showModal());
    for (const seconds of [600, 3600])
      $("span-" + seconds).addEventListener("click", () => {
        for (const other of [600, 3600]) attr($("span-" + other), "aria-pressed", String(other === seconds));
        this.charts.setSpan(seconds);
      });
  }

  keys() {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target.closest("input, select, textarea");
      const dialog = document.querySelector("dialog[open]");
      if (event.key === "Escape" && typing && typing.closest("#filter")) {
        // An empty one is left.
        if (this.flights.filtered()) this.flights.clear();
        else typing.blur();
        return event.preventDefault();
      }
      if (typing) return;
      if (dialog) {
        if (event.key === "r" && dialog === $("panel")) this.panel.again();
        return;
      }
      const does = {
        "/": () => {
          $("requests").scrollIntoView({ block: "start" });
          $("find").focus({ preventScroll: true });
          $("find").select();
        },
        j: () => this.flights.step(1),
        k: () => this.flights.step(-1),
        p: () => this.togglePause(),
        d: () => this.toggleTheme(),
        "?": () => $("keys").showModal(),
      }[event.key];
      const inRows = $("flights-rows").contains(event.target);
      if (does) does();
      else if (inRows && event.key === "ArrowDown") this.flights.step(1);
      else if (inRows && event.key === "ArrowUp") this.flights.step(-1);
      else return;
      event.preventDefault();
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const app = new App();
  // The frame is painted first; a page that nobody sees is not painted at all.
  if (document.hidden) app.start();
  else requestAnimationFrame(() => setTimeout(() => app.start()));
});
