// The panel at the side: one request with its waterfall and the stack of its thread now, or all threads of a worker.

const READ_MS = 2000;
const LIBRARY = /\/(site-packages|dist-packages|lib\/python3[^/]*)\/|^<frozen /;

// kind: "library", or "own" for the application's code; "mine" is the newest of its frames.
function frameItem(f, kind) {
  return h("li", { class: kind },
    f.source ? h("code", {}, f.source) : null,
    h("span", {}, h("b", {}, f.function), " ", h("span", { class: "where" }, f.file + (f.line ? ":" + f.line : ""))));
}

function stackText(t) {
  const head = "thread " + t.thread + " " + (t.name || "") + " " + t.state + (t.waits_in ? " in " + t.waits_in : "") + ", lock: " + (t.lock || "not known") + (t.lock_for ? " for " + t.lock_for + " s" : "");
  const request = t.request ? "\n  request " + t.request.id + " " + t.request.method + " " + t.request.path + " " + (t.request.user || "") : "";
  const frames = (t.frames || []).map((f) => '  File "' + f.file + '", line ' + f.line + ", in " + f.function + (f.source ? "\n    " + f.source : ""));
  return head + request + "\n" + (frames.join("\n") || "  (no Python code)") + (t.more_frames ? "\n  …" : "") + "\n";
}

function frameList(t) {
  if (!t.frames || !t.frames.length) return h("p", { class: "none" }, t.python ? "It is in no Python function now." : "A thread without Python code.");
  const mine = t.frames.findIndex((f) => !LIBRARY.test(f.file));
  const list = h("ol", { class: "frames" }, ...t.frames.map((f, i) => frameItem(f, (LIBRARY.test(f.file) ? "library" : i === mine ? "own mine" : "own") + (i === 0 ? " first" : ""))));
  if (t.more_frames) list.append(h("li", { class: "library" }, "… older frames are left out"));
  return list;
}

// Threads that stand at the same place are one group.
function fold(threads) {
  const groups = new Map();
  for (const t of threads) {
    const waits = (t.waits_in || "").split(":")[0];
    const key = JSON.stringify([t.lock, t.state, waits, t.python, (t.frames || []).map((f) => [f.function, f.file, f.line])]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(t);
  }
  const weight = (g) => (g[0].lock === "holds" ? 0 : g[0].request ? 1 : g[0].frames && g[0].frames.length ? 2 : 3);
  return [...groups.values()].sort((a, b) => weight(a) - weight(b) || b.length - a.length);
}

class Panel {
  constructor(dialog) {
    this.dialog = dialog;
    this.turn = 0;
    dialog.addEventListener("close", () => this.ended());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    setInterval(() => this.tick(), 1000);
  }

  ended() {
    this.turn++;
    clearTimeout(this.timer);
    this.reading = null;
    this.dialog.replaceChildren();
    if (this.back && this.back.isConnected) this.back.focus();
  }

  // A fresh panel; `parts` are put into it.
  begin(title, ...parts) {
    if (!this.dialog.open) this.back = document.activeElement;
    this.turn++;
    clearTimeout(this.timer);
    this.paused = false;
    this.reading = null;
    const heading = h("h2", { id: "panel-title", tabindex: "-1" }, title);
    this.dialog.replaceChildren(
      h("header", {}, heading, h("button", { type: "button", class: "close", onclick: () => this.dialog.close(), "aria-label": "Close" }, "Close")),
      h("div", { class: "inside" }, ...parts));
    if (!this.dialog.open) this.dialog.showModal();
    heading.focus();
    this.dialog.scrollTop = 0;
  }

  controls() {
    this.state = h("span", { class: "read", role: "status" }, "reading …");
    this.hold = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.setPaused(!this.paused) }, "Pause");
    const copy = h("button", { type: "button", onclick: async () => put(copy, (await copyText(this.text())) ? "Copied" : "Not copied") }, "Copy as text");
    copy.addEventListener("blur", () => put(copy, "Copy as text"));
    return h("div", { class: "controls" }, this.state, h("button", { type: "button", onclick: () => this.again() }, "Read again"), this.hold, copy);
  }

  setPaused(paused) {
    this.paused = paused;
    attr(this.hold, "aria-pressed", String(paused));
    put(this.hold, paused ? "Go on" : "Pause");
    if (!paused) this.again();
  }

  again() {
    if (this.reading) this.read(this.turn);
  }

  // Read now, and every two seconds while the panel is open, seen and not paused.
  async read(turn) {
    clearTimeout(this.timer);
    const stop = new AbortController();
    const limit = setTimeout(() => stop.abort(), 4000);
    try {
      const answer = await fetch(this.reading.path, { cache: "no-store", signal: stop.signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || "the server answers " + answer.status);
      const data = await answer.json();
      if (turn !== this.turn) return;
      this.readAt = Date.now();
      this.reading.show(data);
      this.tick();
    } catch (error) {
      if (turn === this.turn) put(this.state, "not read: " + (error.name === "AbortError" ? "no answer within 4 s" : error.message));
    } finally {
      clearTimeout(limit);
      if (turn === this.turn && this.reading && !this.reading.once) this.timer = setTimeout(() => this.next(turn), READ_MS);
    }
  }

  next(turn) {
    if (turn !== this.turn) return;
    if (this.paused || document.hidden) this.timer = setTimeout(() => this.next(turn), READ_MS);
    else this.read(turn);
  }

  tick() {
    if (!this.dialog.open || !this.readAt || !this.reading) return;
    const old = (Date.now() - this.readAt) / 1000;
    if (!this.state.textContent.startsWith("not read")) put(this.state, "read at " + clock(this.readAt / 1000) + (old > READ_MS / 1000 + 1 ? ", " + ago(old) : ""));
  }

  // ---- one request in flight ----

  request(f) {
    this.flight = f;
    this.thread = null;
    this.lead = h("p", { class: "lead" });
    this.fall = h("div", { class: "fall" });
    this.stack = h("div", { class: "stack" }, h("p", { class: "none" }, "Asking the worker …"));
    this.facts = h("dl", { class: "facts" });
    this.readAt = 0;
    this.begin(requestName(f), this.lead, this.fall, h("section", { "aria-label": "The stack of its thread now" }, h("h3", {}, "Its thread now"), this.controls(), this.stack), h("h3", {}, "All of it"), this.facts);
    this.showFlight(f);
    this.reading = { path: "request.json?worker=" + encodeURIComponent(f.worker) + "&id=" + encodeURIComponent(f.id), show: (data) => this.showRequest(data) };
    this.read(this.turn);
  }

  showRequest(data) {
    this.thread = data.thread;
    if (data.flight) {
      this.flight = data.flight;
      this.showFlight(data.flight);
    } else {
      put(this.lead, "It is over: no longer in flight. If it was slow or failed, it is in the lists below the workers.");
      attr(this.lead, "data-over", "yes");
      this.reading.once = true;
    }
    if (data.flight || data.thread) this.showStack(data.thread);
    this.showFacts();
  }

  showStack(t) {
    if (!t) {
      const f = this.flight;
      this.stack.replaceChildren(h("p", { class: "none" }, f.state === "application" || f.state === "late" ? "The worker does not say which thread runs it." : "No thread runs it now. It is in state " + f.state + ": " + (WORDS.states[f.state] || NONE) + "."));
      return;
    }
    const chips = h("p", { class: "chips" }, h("span", {}, "thread " + t.thread), t.name ? h("span", {}, t.name) : null,
      h("span", { "data-tone": t.state === "R" ? "warn" : null }, { R: "computes", S: "waits", D: "waits for a disk" }[t.state] || t.state),
      h("span", { "data-tone": t.lock === "holds" ? "bad" : t.lock === "waits" ? "warn" : null }, "lock: " + (t.lock || "not known") + (t.lock_for ? " " + time(t.lock_for) : "")),
      t.waits_in ? h("span", { class: "mono" }, t.waits_in) : null,
      t.cpu != null ? h("span", {}, "processor " + time(t.cpu)) : null);
    // Whoever selects a text of the stack keeps it.
    if (this.stack.contains(getSelection().anchorNode) && String(getSelection())) return;
    this.stack.replaceChildren(h("p", { class: "says" }, threadSays(t)), chips, frameList(t), ...(t.complete === false ? [h("p", { class: "note" }, "It ran on while it was looked at: frames may be of two moments.")] : []));
  }

  showFlight(f) {
    if (f.state) put(this.lead, "In flight for " + time(f.age) + "; in state " + f.state + " for " + time(f.in_state) + ": " + (WORDS.states[f.state] || NONE) + ".");
    const all = f.age != null ? f.age : f.total;
    const whole = Math.max(all || 0, 0.000001);
    const rows = (f.waterfall || []).map(([state, begin, took]) => {
      const last = took == null;
      const length = last ? Math.max(whole - begin, 0) : took;
      const bar = h("i", { "data-state": state, "data-now": last ? "yes" : null });
      bar.style.left = Math.min(100, (begin / whole) * 100) + "%";
      bar.style.width = Math.max(0.4, Math.min(100, (length / whole) * 100)) + "%";
      return h("li", {}, h("span", { title: WORDS.states[state] }, state), h("span", { class: "track" }, bar), h("b", {}, time(length) + (last ? " …" : "")));
    });
    this.fall.replaceChildren(h("ol", { "aria-label": "Waterfall: " + time(all) + " in all" }, ...rows));
    this.showFacts();
  }

  showFacts() {
    const f = this.flight;
    const facts = [["user", f.user || "nobody"], ["address", f.address], ["route", f.route], ["worker", f.worker + " (pid " + f.pid + ")"], ["request", f.id], ["X-Request-Id", f.request_id], ["trace", f.trace_id], ["began", clock(f.at)],
      ["thread", f.thread || NONE], ["body", bytes(f.bytes_in)], ["slow-request", f.slow ? "has told of it" : null], ["status", f.status != null ? f.status || "none was sent" : null], ["refused", f.refusal ? f.refusal + ": " + (WORDS.refusals[f.refusal] || "") : null], ["cut", f.cut ? f.cut + ": " + (WORDS.cuts[f.cut] || "") : null]];
    keep(this.facts, facts.filter(([, value]) => value != null && value !== ""), ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})), (node, [, value]) => put(node.lastChild, value));
  }

  // ---- one that is over ----

  kept(f) {
    this.flight = f;
    this.thread = null;
    this.lead = h("p", { class: "lead" }, "It ended at " + clock(f.at + f.total) + " after " + time(f.total) + " " + answerSays(f) + ".");
    this.fall = h("div", { class: "fall" });
    this.facts = h("dl", { class: "facts" });
    this.begin(requestName(f), this.lead, this.fall, h("h3", {}, "All of it"), this.facts);
    this.showFlight({ ...f, state: null });
  }

  // ---- all threads of a worker ----

  stacks(slot) {
    this.lead = h("p", { class: "lead" }, "Asking worker " + slot + " …");
    this.groups = h("div", { class: "groups" });
    this.threads = [];
    this.readAt = 0;
    this.begin("Threads of worker " + slot, this.controls(), this.lead, this.groups);
    this.reading = { path: "stacks.json?worker=" + encodeURIComponent(slot), show: (data) => this.showStacks(data, slot) };
    this.read(this.turn);
  }

  showStacks(data, slot) {
    const w = (data.workers || []).find((one) => one.slot === slot) || (data.workers || [])[0];
    if (!w) return put(this.lead, "There is no worker " + slot + " now.");
    if (w.error) {
      put(this.lead, "Worker " + slot + " (pid " + w.pid + "): " + w.error + ".");
      return;
    }
    if (this.groups.contains(getSelection().anchorNode) && String(getSelection())) return;
    this.threads = w.threads || [];
    const groups = fold(this.threads);
    const holder = this.threads.find((t) => t.lock === "holds");
    const wait = this.threads.filter((t) => t.lock === "waits").length;
    put(this.lead, plural(this.threads.length, "thread") + " at " + plural(groups.length, "place") + ", read in " + time(w.took) + ". " +
      (holder ? "Thread " + holder.thread + " holds the interpreter lock" + (holder.lock_for ? " since " + time(holder.lock_for) : "") + (wait ? "; " + plural(wait, "thread waits", "threads wait") + " for it." : ".") : "Nobody holds the interpreter lock."));
    const open = new Set([...this.groups.querySelectorAll("details")].filter((d) => !d.open).map((d) => d.dataset.key));
    const focus = this.groups.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    this.groups.replaceChildren(...groups.map((group) => this.group(group, open)));
    if (focus) {
      const again = [...this.groups.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === focus);
      if (again) again.focus();
    }
  }

  group(group, shut) {
    const t = group[0];
    const top = (t.frames || [])[0];
    const key = t.lock + (top ? top.file + top.line : t.name);
    const requests = group.filter((one) => one.request);
    const summary = h("summary", { "data-focus": "s" + key }, h("b", { class: "times" }, group.length + " ×"), h("span", {}, top ? top.function : t.name || "thread " + t.thread), h("small", {}, threadSays(t)));
    const links = requests.slice(0, 20).map((one) => h("button", { type: "button", "data-focus": "r" + one.request.id, onclick: () => this.request({ ...one.request, worker: this.slotOf(), pid: this.pidOf(), in_state: null, waterfall: [] }) }, requestName(one.request) + " " + time(one.request.age)));
    return h("details", { "data-key": key, open: !shut.has(key) && (t.python !== false || requests.length > 0), "data-tone": t.lock === "holds" ? "bad" : null },
      summary, links.length ? h("p", { class: "chips links" }, ...links, requests.length > 20 ? h("span", {}, "and " + (requests.length - 20) + " more") : null) : null,
      frameList(t), h("p", { class: "note mono" }, "threads " + group.map((one) => one.thread).join(", ") + (t.waits_in ? "; " + listed([...new Set(group.map((one) => one.waits_in).filter(Boolean))], 5) : "")));
  }

  slotOf() {
    return Number(new URLSearchParams(this.reading.path.split("?")[1]).get("worker"));
  }

  pidOf() {
    return this.pids ? this.pids(this.slotOf()) : 0;
  }

  // What the button copies.
  text() {
    if (this.reading && this.reading.path.startsWith("stacks")) return this.threads.map(stackText).join("\n");
    const f = this.flight;
    const fall = (f.waterfall || []).map(([state, begin, took]) => "  " + state + " from " + begin + " s" + (took == null ? ", now" : " for " + took + " s"));
    return requestName(f) + "\nrequest " + f.id + " of worker " + f.worker + " (pid " + f.pid + "), " + (f.user || "nobody") + " " + (f.address || "") + ", " + (f.state || "over") + "\n" + fall.join("\n") + "\n" + (this.thread ? stackText(this.thread) : "");
  }
}

// "with 504 (cut: client_left)"
function answerSays(f) {
  return (f.status ? "with " + f.status : "without an answer") + (f.refusal ? ", refused: " + f.refusal : "") + (f.cut ? ", cut: " + f.cut : "");
}
