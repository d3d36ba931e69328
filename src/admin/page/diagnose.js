// What is the matter now, in words. A pure function of the data, so that its rules can be tested.
//
// Each rule gives problems: {kind, level, text, hint, act}. level: "bad" (users are hurt now), "warn" (they will be,
// or some are), "note" (worth knowing). text: a clause of the headline. hint: what to do, with `act` as its button.

const RULES = {
  silent: 3, // a worker's loop has given no sign of life for so long, s; one comes each second
  longRun: 30, // a request is in the application, s
  barred: 1, // a request waits for a thread of a worker that has free ones, s
  barredBad: 3,
  queueHead: 10, // the first of a route's queue has waited, s
  booting: 30, // a worker is booting, s
  lockWait: 0.1, // 99 % wait less for the interpreter lock, s
  lockBad: 1,
  loopLag: 0.1, // 99 % of heartbeats are less late, s
  failWarn: 0.01, // of answers in the last minute
  failBad: 0.1,
  refuse: 0.1,
  crash: 600, // a crash is told of for so long, s
};

function listed(names, most) {
  const limit = most || 3;
  if (names.length > limit) return names.slice(0, limit).join(", ") + " and " + (names.length - limit) + " more";
  return names.length > 1 ? names.slice(0, -1).join(", ") + " and " + names[names.length - 1] : String(names[0]);
}

function workerName(slots) {
  return (slots.length === 1 ? "worker " : "workers ") + listed(slots);
}

function requestName(f) {
  const path = f.path.length > 60 ? f.path.slice(0, 57) + "…" : f.path;
  return f.method + " " + path;
}

// s: /status.json; c: {points: of the last minute, oldest: oldest in the application or null, crashedAt: Unix time or null}
function problems(s, c) {
  const found = [];
  const add = (kind, level, text, hint, act) => found.push({ kind, level, text, hint, act });
  const workers = s.workers || [];
  const serving = workers.filter((w) => w.state === "ready" || w.state === "draining");
  const by = s.flights_by_state || {};

  const silent = serving.filter((w) => w.beat_age > RULES.silent);
  if (silent.length) {
    const worst = silent.reduce((a, b) => (b.beat_age > a.beat_age ? b : a));
    add("silent", "bad", workerName(silent.map((w) => w.slot)) + (silent.length === 1 ? " gives" : " give") + " no sign of life since " + time(worst.beat_age),
      "Its loop does not turn: nothing it serves moves. Look where its threads are, then recycle it.", { label: "Stacks of worker " + worst.slot, stacks: worst.slot });
  }
  if (workers.length && !workers.some((w) => w.state === "ready"))
    add("nobody", "bad", "no worker is ready", "Nobody takes requests. The error log says why workers do not start.", { label: "Workers", section: "workers" });

  const waits = (by.thread || 0) + (by.queued || 0) + (by.quota || 0);
  const ready = workers.filter((w) => w.state === "ready");
  const full = ready.filter((w) => w.places > 0 && w.busy >= w.places);
  if (full.length && ((by.thread || 0) > 0 || full.some((w) => w.waiting > 0))) {
    const all = full.length === ready.length;
    add("full", waits ? "bad" : "warn",
      (all ? (full.length === 1 ? "the worker has" : (full.length === 2 ? "both" : "all " + full.length) + " workers have") : full.length + " of " + ready.length + " workers " + (full.length === 1 ? "has" : "have")) +
        " no free thread; " + plural(waits, "request waits", "requests wait"),
      "Every thread is inside the application. What they do is in their stacks.", { label: "Stacks of worker " + full[0].slot, stacks: full[0].slot });
  }
  // Places are free, and yet nobody gets to run: whoever runs does not let go of the interpreter lock.
  const barred = ready.filter((w) => w.busy < w.places && w.waiting_age > RULES.barred);
  if (barred.length) {
    const worst = barred.reduce((a, b) => (b.waiting_age > a.waiting_age ? b : a));
    add("barred", worst.waiting_age > RULES.barredBad ? "bad" : "warn",
      plural(worst.waiting, "request", "requests") + " of worker " + worst.slot + (worst.waiting === 1 ? " waits" : " wait") + " since " + time(worst.waiting_age) +
        " for a thread, though only " + worst.busy + " of " + worst.places + " are busy",
      "A thread computes, or holds the interpreter lock in C code, and lets nobody run. The stacks name it; Hold gives what waits to other workers.",
      { label: "Stacks of worker " + worst.slot, stacks: worst.slot });
  }
  const old = c.oldest;
  if (old && old.in_state > RULES.longRun)
    add("long", found.some((p) => p.kind === "full" && p.level === "bad") ? "bad" : "warn", "the oldest in the application since " + time(old.in_state) + " (" + requestName(old) + ")",
      "Its stack says where it is now.", { label: "Open " + requestName(old), request: { worker: old.worker, id: old.id } });

  for (const route of (s.routes || []).filter((r) => r.gate && r.gate.waiting > 0 && r.gate.head_age > RULES.queueHead))
    add("queue", "warn", "the first in the queue of " + route.route + " waits since " + time(route.gate.head_age),
      plural(route.gate.waiting, "request waits", "requests wait") + " for " + route.gate.concurrency + " places of " + route.route + ".",
      { label: "Show who waits", filter: { state: "queued", route: route.route } });

  const stuck = workers.filter((w) => w.stuck > 0);
  if (stuck.length) {
    const n = stuck.reduce((sum, w) => sum + w.stuck, 0);
    add("stuck", "warn", plural(n, "thread is", "threads are") + " written off in " + workerName(stuck.map((w) => w.slot)),
      "Answered with 504, and not back from the application yet. Their stacks say where they hang.", { label: "Show them", filter: { state: "late" } });
  }

  const locked = serving.filter((w) => w.gil_wait_p99 > RULES.lockWait);
  if (locked.length) {
    const worst = locked.reduce((a, b) => (b.gil_wait_p99 > a.gil_wait_p99 ? b : a));
    add("lock", worst.gil_wait_p99 > RULES.lockBad ? "bad" : "warn", "threads of worker " + worst.slot + " wait up to " + time(worst.gil_wait_p99) + " for the interpreter lock",
      "One thread computes, or holds the lock in C code, and the others stand still. The stacks name it.", { label: "Stacks of worker " + worst.slot, stacks: worst.slot });
  }
  const lagging = serving.filter((w) => w.loop_lag_p99 > RULES.loopLag && w.beat_age <= RULES.silent);
  if (lagging.length) {
    const worst = lagging.reduce((a, b) => (b.loop_lag_p99 > a.loop_lag_p99 ? b : a));
    add("lag", "warn", "the loop of worker " + worst.slot + " is up to " + time(worst.loop_lag_p99) + " late", "The machine has too little processor time for it, or something blocks its loop.", { label: "Workers", section: "workers" });
  }

  let asked = 0, failed = 0, refused = 0;
  for (const p of c.points || []) {
    asked += p.requests || 0;
    failed += p.failed || 0;
    refused += p.refused || 0;
  }
  if (failed >= 1 && failed / Math.max(asked, failed) >= RULES.failWarn)
    add("errors", failed / Math.max(asked, failed) >= RULES.failBad ? "bad" : "warn",
      plural(failed, "answer", "answers") + " of the last minute failed (" + percent(failed / Math.max(asked, failed)) + ")", "The newest failures, with their waterfall, are below; tracebacks are in the error log.", { label: "Failed requests", section: "kept" });
  if (refused >= 1 && refused / Math.max(asked, refused) >= RULES.refuse)
    add("refused", "warn", plural(refused, "request was", "requests were") + " refused in the last minute (" + percent(refused / Math.max(asked, refused)) + ")",
      "Who meets which limit is told below.", { label: "Limits", section: "limits" });

  if (c.crashedAt && s.now - c.crashedAt < RULES.crash)
    add("crash", "warn", "a worker crashed " + ago(s.now - c.crashedAt), "The supervisor has put another in its place; the error log says how it ended.", { label: "Failed requests", section: "kept" });
  const slow = workers.filter((w) => w.state === "booting" && s.now - w.started > RULES.booting);
  if (slow.length)
    add("booting", "warn", workerName(slow.map((w) => w.slot)) + (slow.length === 1 ? " is" : " are") + " still booting after " + time(s.now - slow[0].started), "It imports the application. Its stack says what that waits for.", { label: "Stacks of worker " + slow[0].slot, stacks: slow[0].slot });
  if (s.ready === false && !found.some((p) => p.kind === "nobody"))
    add("unready", s.unready === "draining" ? "note" : "warn", "the server says that it is not ready (" + (s.unready || "unknown") + ")", "A load balancer that asks /ready sends nothing here now.", null);
  const held = workers.filter((w) => w.held);
  if (held.length)
    add("held", "note", workerName(held.map((w) => w.slot)) + (held.length === 1 ? " is" : " are") + " held", "It takes no new connections until it is resumed.", { label: "Workers", section: "workers" });

  const rank = { bad: 0, warn: 1, note: 2 };
  return found.map((p, i) => [p, i]).sort((a, b) => rank[a[0].level] - rank[b[0].level] || a[1] - b[1]).map((a) => a[0]);
}

function percent(part) {
  return (part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)) + NBSP + "%";
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + ".";
}

// {level, text, problems}: level "ok", "note", "warn" or "bad".
function diagnose(s, c) {
  const found = problems(s, c);
  if (found.length)
    return { level: found[0].level, text: sentence(found.slice(0, 3).map((p) => p.text).join("; ")), problems: found };
  const total = s.flights_total || 0;
  const busy = (s.workers || []).reduce((sum, w) => sum + w.busy, 0);
  const places = (s.workers || []).reduce((sum, w) => sum + w.places, 0);
  const last = (c.points || [])[(c.points || []).length - 1];
  if (!total && !(last && last.requests))
    return { level: "ok", text: "All is well, and quiet: nothing is in flight.", problems: [] };
  const tail = c.p99 == null ? "" : "; 99 % are answered within " + time(c.p99);
  return {
    level: "ok",
    text: "All is well: " + (last ? rate(last.requests) + " requests a second, " : "") + busy + " of " + plural(places, "thread") + " busy" + tail + ".",
    problems: [],
  };
}

// What a thread does, in a sentence. t: of /stacks.json.
function threadSays(t) {
  const waits = t.waits_in ? " in " + t.waits_in : "";
  if (t.lock === "holds") {
    const since = t.lock_for ? " since " + time(t.lock_for) : "";
    if (t.state === "R") return "It computes, and holds the interpreter lock" + since + ": other threads of this worker get to run only when it lets go.";
    return "It holds the interpreter lock" + since + " while it waits" + waits + ": C code that does not let go of it. No other thread of this worker can run Python.";
  }
  if (t.lock === "waits") return "It waits for the interpreter lock, which another thread of this worker holds.";
  if (t.state === "D") return "It waits for a disk" + waits + ".";
  if (t.state === "S") return t.waits_in ? "It waits" + waits + "." : "It waits.";
  if (t.state === "R") return "It computes, without the interpreter lock.";
  return "The kernel says " + t.state + " of it.";
}
