// The workers: what each has to do, and what can be done to it.

const PLACES_DRAWN = 64;

class Workers {
  // act: {stacks(slot), filter(values)}
  constructor(act) {
    this.act = act;
    this.list = $("workers-list");
  }

  make(w) {
    const p = {};
    const button = (name, label, title) => (p[name] = h("button", { type: "button", title, onclick: () => this.pressed(node, name) }, label));
    p.title = h("h3");
    p.state = h("span", { class: "chip" });
    p.facts = h("dl", { class: "facts" });
    p.places = h("div", { class: "places", role: "img" });
    p.said = h("p", { class: "said", role: "status" });
    p.ask = h("div", { class: "ask", hidden: true });
    p.buttons = h("div", { class: "buttons" }, button("stacks", "Stacks", "Every thread of it, folded by place"), button("requests", "Requests", "Only its requests in the table above"), button("hold", "Hold", "It takes no new connections, and lives on to be looked at"), button("recycle", "Recycle", "A new process takes its place; it ends when its requests are done"));
    const node = h("li", {}, h("div", { class: "top" }, p.title, p.state), p.places, p.facts, p.buttons, p.ask, p.said);
    node.parts = p;
    return node;
  }

  update(node, w, s) {
    const p = node.parts;
    const old = s.now - w.started;
    put(p.title, "Worker " + w.slot);
    const word = w.held ? w.state + ", held" : w.recycle && w.recycle !== "none" ? w.state + ", asks to be replaced: " + w.recycle : w.state;
    const silent = (w.state === "ready" || w.state === "draining") && w.beat_age > RULES.silent;
    put(p.state, silent ? "no sign of life since " + time(w.beat_age) : word);
    attr(p.state, "data-tone", silent ? "bad" : w.state === "ready" && !w.held ? "good" : "warn");
    this.draw(p.places, w);
    const facts = [["pid", w.pid + (w.generation > 1 ? ", process " + w.generation : "")], ["runs for", time(old)], ["threads busy", w.busy + " of " + w.places], ["written off", w.stuck || null], ["in flight", number(w.in_flight)], ["wait for a thread", number(w.waiting)], ["connections", number(w.open)], ["requests", number(w.requests)],
      ["memory", bytes(w.rss_bytes)], ["buffered", bytes(w.buffered_bytes)], ["descriptors", number(w.descriptors)], ["lock wait, 99 %", time(w.gil_wait_p99)], ["loop late, 99 %", time(w.loop_lag_p99)]];
    keep(p.facts, facts.filter(([, value]) => value != null), ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})), (one, [name, value]) => {
      put(one.lastChild, value);
      const tone = name === "written off" || (name === "lock wait, 99 %" && w.gil_wait_p99 > RULES.lockWait) || (name === "loop late, 99 %" && w.loop_lag_p99 > RULES.loopLag) ? "bad" : name === "wait for a thread" && w.waiting ? "warn" : null;
      attr(one, "data-tone", tone);
    });
    put(p.hold, w.held ? "Resume" : "Hold");
    attr(p.hold, "title", w.held ? "It takes new connections again" : "It takes no new connections, and lives on to be looked at");
    for (const name of ["hold", "recycle"]) {
      p[name].disabled = Boolean(s.alone);
      if (s.alone) attr(p[name], "title", "One process serves alone: nobody is there to take over");
    }
  }

  // One mark for each place: busy, written off, free.
  draw(box, w) {
    attr(box, "aria-label", w.busy + " of " + w.places + " threads busy" + (w.stuck ? ", " + w.stuck + " of them written off" : ""));
    if (w.places > PLACES_DRAWN) {
      box.kept = null;
      if (!box.firstChild || box.firstChild.className !== "long") box.replaceChildren(h("i", { class: "long" }, h("i")));
      box.firstChild.firstChild.style.width = (100 * w.busy) / w.places + "%";
      return;
    }
    const marks = [];
    for (let i = 0; i < w.places; i++) marks.push(i < w.stuck ? "stuck" : i < w.busy ? "busy" : "free");
    if (box.firstChild && box.firstChild.className === "long") box.replaceChildren();
    keep(box, marks, (m) => "p", () => h("i"), (i, mark) => attr(i, "data-place", mark));
  }

  pressed(node, name) {
    const w = node.item;
    if (name === "stacks") return this.act.stacks(w.slot);
    if (name === "requests") return this.act.filter({ worker: String(w.slot) });
    const action = name === "hold" && w.held ? "resume" : name;
    if (action === "resume") return this.send(node, action);
    const says = { recycle: "A new process takes the place of worker " + w.slot + ". It finishes its " + plural(w.in_flight, "request") + ", then ends.", hold: "Worker " + w.slot + " takes no new connections until it is resumed. Its requests go on." }[action];
    const yes = h("button", { type: "button", class: "yes", onclick: () => this.send(node, action) }, action === "recycle" ? "Recycle it" : "Hold it");
    const no = h("button", { type: "button", onclick: () => this.unask(node, name) }, "Leave it");
    node.parts.ask.replaceChildren(h("p", {}, says), yes, no);
    node.parts.ask.onkeydown = (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.unask(node, name);
    };
    node.parts.ask.hidden = false;
    node.parts.buttons.hidden = true;
    put(node.parts.said, "");
    yes.focus();
  }

  unask(node, name) {
    node.parts.ask.hidden = true;
    node.parts.buttons.hidden = false;
    if (name) node.parts[name].focus();
  }

  async send(node, action) {
    const slot = node.item.slot;
    this.unask(node, action === "recycle" ? "recycle" : "hold");
    put(node.parts.said, "Asking …");
    let text;
    try {
      const answer = await fetch("workers/" + encodeURIComponent(slot) + "/" + action, { method: "POST", cache: "no-store" });
      const data = await answer.json().catch(() => ({}));
      if (answer.ok && data.ok) text = { recycle: "A new process is started; this one goes when it is ready.", hold: "Held.", resume: "It takes connections again." }[action];
      else text = "Not done: " + (data.error || "the server answers " + answer.status);
    } catch {
      text = "Not done: the server cannot be reached.";
    }
    put(node.parts.said, text + " (" + clock(Date.now() / 1000) + ")");
  }

  show(s) {
    const workers = s.workers || [];
    keep(this.list, workers, (w) => w.slot, (w) => this.make(w), (node, w) => this.update(node, w, s));
    const p = s.processes || {};
    const recycled = Object.entries(p.recycled || {}).filter(([, n]) => n > 0).map(([why, n]) => why + " " + n);
    put($("workers-count"), (s.alone ? "one process serves alone" : plural(p.started || 0, "process", "processes") + " started") + (p.crashed ? ", " + number(p.crashed) + " crashed" : "") + (recycled.length ? "; recycled: " + recycled.join(", ") : ""));
  }
}
