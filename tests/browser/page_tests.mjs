// The status page in Chromium, against a fake admin listener. Run by test_page.py: one line of JSON for each test.
// usage: node page_tests.mjs [PART OF A NAME]

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import vm from "node:vm";
import { fileURLToPath } from "node:url";
import { fakeAdmin, launch } from "./page_browser.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const tests = [];
const test = (name, run) => tests.push({ name, run });
let fake, browser;

async function until(what, condition, seconds = 15) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert.ok(Date.now() < end, what + " did not come within " + seconds + " s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// A page of a scenario; complaints are what no page may have.
async function open(scenario, { width = 1280, height = 900, dark = false, before } = {}) {
  await fake.scenario(scenario);
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", reducedMotion: "reduce", isMobile: width < 600 });
  await context.addInitScript(() => {
    window.broken = [];
    document.addEventListener("securitypolicyviolation", (event) => window.broken.push(event.violatedDirective + " " + event.blockedURI));
  });
  if (before) await context.addInitScript(before);
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => message.type() === "error" && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(fake.url) && !request.url().startsWith("data:")) page.complaints.push("asked " + request.url());
  });
  page.on("dialog", (dialog) => {
    page.complaints.push("a dialog: " + dialog.message());
    dialog.dismiss();
  });
  await page.goto(fake.url);
  await page.waitForFunction(() => document.body.dataset.link === "live" && document.querySelector("#foot").textContent.startsWith("Data"));
  opened.push(page);
  return page;
}
const opened = [];

async function closeAll() {
  for (const page of opened.splice(0)) {
    const broken = await page.evaluate(() => window.broken);
    await page.context().close();
    assert.deepEqual(broken, [], "the policy was broken");
    assert.deepEqual(page.complaints, [], "the browser complained");
  }
}

const text = (page, selector) => page.locator(selector).first().innerText();
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.body.scrollWidth <= innerWidth);
const asked = async (pattern) => (await fake.log()).filter((line) => pattern.test(line));

// ---- what it says ----

test("a calm server is said to be well", async () => {
  const page = await open("calm");
  assert.match(await text(page, "#headline"), /^All is well: [\d.]+ requests a second, \d+ of 32.threads busy; 99.% are answered within/);
  assert.equal(await page.locator("body").getAttribute("data-level"), "ok");
  assert.equal(await page.locator("#steps li").count(), 0);
  assert.equal(await page.locator("#charts canvas").count(), 4);
  assert.equal(await text(page, '[data-figure="threads"] dd span'), "5\u00a0/\u00a032");
  for (const figure of ["requests", "p50", "p95", "p99", "in_flight"]) assert.match(await text(page, `[data-figure="${figure}"] dd`), /\d/);
  assert.match(await page.title(), /^all is well · weir/);
  assert.equal(await page.locator("#flights-rows tr").count(), 6);
  assert.match(await text(page, "#routes-rows"), /user 10\/min burst 3/);
  assert.match(await text(page, "#limits-rows"), /jwt:alan/);
});

test("an idle server is said to be quiet", async () => {
  const page = await open("empty");
  assert.equal(await text(page, "#headline"), "All is well, and quiet: nothing is in flight.");
  assert.equal(await text(page, "#flights-none"), "Nothing is in flight.");
});

test("a hung application is named in the headline, with where to look", async () => {
  const page = await open("hung");
  const headline = await text(page, "#headline");
  assert.match(headline, /^2 of 4 workers have no free thread; 37.requests wait; the oldest in the application since 4\d.s \(POST \/api\/ai\/build-board\); threads of worker 1 wait up to 1\.9.s for the interpreter lock\.$/);
  assert.equal(await page.locator("body").getAttribute("data-level"), "bad");
  const steps = await text(page, "#steps");
  assert.match(steps, /Stacks of worker 0/);
  assert.match(steps, /written off in worker 0/);
  assert.match(steps, /waits since \d+.s\. 16.requests wait for 8 places of POST \/api\/ai/);
  assert.equal(await text(page, '#flow [data-state="thread"] b'), "21");
  await page.getByRole("button", { name: "Open POST /api/ai/build-board" }).click();
  await page.waitForSelector("#panel .frames");
  assert.match(await text(page, "#panel"), /ask_model/);
});

test("a worker that crashes while the page is open is told", async () => {
  const page = await open("calm");
  await fake.crash();
  await page.waitForFunction(() => document.querySelector("#headline").textContent.startsWith("A worker crashed"));
  assert.equal(await page.locator("body").getAttribute("data-level"), "warn");
});

test("the headline is said aloud when the matter changes, not when a number does", async () => {
  const page = await open("calm");
  await page.evaluate(() => {
    window.told = 0;
    new MutationObserver(() => window.told++).observe(document.querySelector("#said"), { childList: true, characterData: true, subtree: true });
    window.changed = 0;
    new MutationObserver(() => window.changed++).observe(document.querySelector("#headline"), { childList: true, characterData: true, subtree: true });
  });
  await page.waitForFunction(() => window.changed >= 3);
  assert.equal(await page.evaluate(() => window.told), 0);
  await fake.crash();
  await page.waitForFunction(() => window.told === 1);
  assert.match(await page.locator("#said").textContent(), /crashed/);
});

test("each rule of the headline finds its problem, and only it", async () => {
  const words = execFileSync("/usr/bin/python3", ["-c", "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, 'tests/browser'); import fake_admin; fake_admin.build_page(); import embed_page; print(embed_page.words([]))"], { cwd: ROOT, encoding: "utf8" });
  const source = words + ["dom.js", "diagnose.js"].map((name) => fs.readFileSync(path.join(ROOT, "src/admin/page", name), "utf8")).join("\n");
  const { diagnose, threadSays, time, ago, bytes } = vm.runInNewContext(source + "\n({ diagnose, threadSays, time, ago, bytes })");
  const worker = (more) => ({ slot: 0, state: "ready", held: false, beat_age: 0.5, places: 8, busy: 2, stuck: 0, waiting: 0, gil_wait_p99: 0.001, loop_lag_p99: 0.001, started: 0, ...more });
  const base = { now: 1000, ready: true, flights_total: 3, flights_by_state: {}, routes: [], workers: [worker(), worker({ slot: 1 })] };
  const kinds = (s, c) => [...diagnose({ ...base, ...s }, { points: [], oldest: null, ...c }).problems].map((p) => p.kind + ":" + p.level).join(" ");
  assert.equal(kinds({}), "");
  assert.equal(kinds({ workers: [worker({ beat_age: 12 }), worker({ slot: 1 })] }), "silent:bad");
  assert.equal(kinds({ workers: [worker({ beat_age: 2.2 })] }), "", "a heart beats each second");
  assert.match(diagnose({ ...base, workers: [worker({ beat_age: 9 }), worker({ slot: 1, beat_age: 9 })] }, { points: [] }).text, /^Workers 0 and 1 give no sign of life since 9\.0.s\.$/);
  assert.match(diagnose({ ...base, workers: [worker({ busy: 8, waiting: 1 }), worker({ slot: 1, busy: 8 })], flights_by_state: { thread: 1 } }, { points: [] }).text, /^Both workers have no free thread; 1.request waits\.$/);
  assert.equal(kinds({ workers: [worker({ state: "booting", beat_age: 900, started: 995 })] }), "nobody:bad");
  assert.equal(kinds({ workers: [worker(), worker({ slot: 1, state: "booting", beat_age: 900, started: 900 })] }), "booting:warn");
  assert.equal(kinds({ workers: [worker({ busy: 8 })] }), "", "busy alone is no problem");
  assert.equal(kinds({ workers: [worker({ busy: 8, waiting: 3 })], flights_by_state: { thread: 3 } }), "full:bad");
  assert.equal(kinds({}, { oldest: { in_state: 29, method: "GET", path: "/" } }), "");
  assert.equal(kinds({}, { oldest: { in_state: 31, method: "GET", path: "/" } }), "long:warn");
  assert.equal(kinds({ routes: [{ route: "*", gate: { waiting: 1, head_age: 11, concurrency: 1 } }] }), "queue:warn");
  assert.equal(kinds({ workers: [worker({ stuck: 1 })] }), "stuck:warn");
  assert.equal(kinds({ workers: [worker({ gil_wait_p99: 0.2 })] }), "lock:warn");
  assert.equal(kinds({ workers: [worker({ gil_wait_p99: 2 })] }), "lock:bad");
  assert.equal(kinds({ workers: [worker({ loop_lag_p99: 0.2 })] }), "lag:warn");
  assert.equal(kinds({}, { points: [{ requests: 1000, failed: 5, refused: 0 }] }), "");
  assert.equal(kinds({}, { points: [{ requests: 100, failed: 5, refused: 0 }] }), "errors:warn");
  assert.equal(kinds({}, { points: [{ requests: 10, failed: 5, refused: 0 }] }), "errors:bad");
  assert.equal(kinds({}, { points: [{ requests: 10, failed: 0, refused: 5 }] }), "refused:warn");
  assert.equal(kinds({}, { crashedAt: 990 }), "crash:warn");
  assert.equal(kinds({}, { crashedAt: 100 }), "");
  assert.equal(kinds({ ready: false, unready: "saturated" }), "unready:warn");
  assert.equal(kinds({ workers: [worker({ held: true })] }), "held:note");
  assert.match(threadSays({ state: "S", lock: "holds", lock_for: 4, waits_in: "futex" }), /C code that does not let go/);
  assert.match(threadSays({ state: "R", lock: "holds", lock_for: 3.2 }), /^It computes, and holds the interpreter lock since 3\.2.s/);
  assert.match(threadSays({ state: "S", lock: "waits" }), /^It waits for the interpreter lock/);
  assert.equal([0, 0.0004, 0.004, 0.23, 4.12, 41, 125, 7500, 90000].map(time).join("|").replaceAll("\u00a0", " "), "0 s|< 1 ms|4.0 ms|230 ms|4.1 s|41 s|2 min 5 s|2 h 5 min|1 d 1 h");
  assert.equal([0.2, 45, 130, 4000].map(ago).join("|").replaceAll("\u00a0", " "), "now|45 s ago|2 min ago|1 h 6 min ago");
  assert.equal([12, 2048, 88e6].map(bytes).join("|").replaceAll("\u00a0", " "), "12 B|2.0 KiB|83.9 MiB");
});

// ---- requests ----

test("a request opens with its waterfall and the stack of its thread, read again and again", async () => {
  const page = await open("hung");
  await page.locator("#flights-rows tr").first().click();
  await page.waitForSelector("#panel .frames");
  assert.equal(await text(page, "#panel-title"), "POST /api/ai/build-board");
  assert.deepEqual(await page.locator("#panel .fall li > span:first-child").allInnerTexts(), ["reading", "queued", "application"]);
  assert.match(await text(page, "#panel .says"), /^It waits in recvfrom: 10\.0\.0\.4:\d+ > 10\.0\.0\.9:443\.$/);
  assert.match(await text(page, "#panel .frames .mine"), /answer = connection\.getresponse\(\)\s+ask_model \/srv\/app\/board\/planner\.py:88/);
  assert.match(await text(page, "#panel .facts"), /jwt:/);
  const reads = async () => (await asked(/request\.json\?worker=0&id=1200/)).length;
  await until("a second reading", async () => (await reads()) >= 2);
  await page.getByRole("button", { name: "Pause" }).last().click();
  const paused = await reads();
  await page.keyboard.press("r");
  await until("the reading by hand", async () => (await reads()) === paused + 1);
  await page.keyboard.press("Escape");
  await page.waitForSelector("#panel:not([open])", { state: "attached" });
  assert.ok(await page.evaluate(() => document.activeElement.closest("#flights-rows tr") !== null), "the focus goes back to the row");
});

test("a thread that computes is said to hold the interpreter lock", async () => {
  const page = await open("hung");
  await page.fill("#find", "catalogue");
  await page.waitForFunction(() => document.querySelectorAll("#flights-rows tr").length === 1);
  await page.locator("#flights-rows button.open").click();
  await page.waitForSelector("#panel .frames");
  assert.match(await text(page, "#panel .says"), /^It computes, and holds the interpreter lock since 3\.2/);
  assert.match(await text(page, "#panel"), /It ran on while it was looked at/);
});

test("a request that waits is said to have no thread", async () => {
  const page = await open("hung");
  await page.click('#flow [data-state="queued"]');
  await page.waitForFunction(() => document.querySelectorAll("#flights-rows tr").length === 16);
  await page.locator("#flights-rows button.open").first().click();
  await page.waitForFunction(() => /No thread runs it now/.test(document.querySelector("#panel .stack").textContent));
});

test("the stack can be copied as text", async () => {
  const page = await open("hung");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.locator("#flights-rows button.open").first().click();
  await page.waitForSelector("#panel .frames");
  await page.getByRole("button", { name: "Copy as text" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(copied, /^POST \/api\/ai\/build-board\nrequest 1200 of worker 0/);
  assert.match(copied, /File "\/srv\/app\/board\/planner\.py", line 88, in ask_model\n {4}answer = connection\.getresponse\(\)/);
});

test("threads of a worker are folded where they stand at the same place", async () => {
  const page = await open("hung");
  await page.getByRole("button", { name: "Stacks", exact: true }).nth(1).click();
  await page.waitForSelector("#panel details");
  assert.match(await text(page, "#panel .lead"), /^10.threads at 5.places, read in 4\.0.ms\. Thread 4729 holds the interpreter lock since 3\.2.s; 1.thread waits for it\.$/);
  const folded = await page.locator("#panel summary").allInnerTexts();
  assert.match(folded[0], /^1 ×\s*rank/, "who holds the lock stands first");
  assert.match(folded[1], /^6 ×\s*recv_into/);
  await page.locator("#panel .links button").first().click();
  await page.waitForFunction(() => document.querySelector("#panel-title").textContent === "GET /api/catalogue/search");
  await page.waitForSelector("#panel .fall li");
});

test("filters and order are asked of the server", async () => {
  const page = await open("hung");
  await page.selectOption("#by-state", "queued");
  await page.selectOption("#by-worker", "1");
  await until("the events", async () => (await asked(/^GET \/events\?.*state=queued&worker=1/)).length === 1);
  await page.waitForFunction(() => [...document.querySelectorAll("#flights-rows tr")].every((row) => row.querySelector(".state").dataset.state === "queued" && row.querySelector(".worker").textContent === "1"));
  await page.click("#clear");
  await page.getByRole("button", { name: "User" }).click();
  await until("the order", async () => (await asked(/^GET \/events\?flights=100&sort=user$/)).length === 1);
  assert.equal(await page.locator("#flights th[aria-sort]").getAttribute("data-sort"), "user");
  await page.fill("#find", "nothing like this");
  await page.waitForFunction(() => document.querySelector("#flights-none").textContent === "No request in flight fits the filter.");
  assert.match(await text(page, "#headline"), /the oldest in the application since/, "the headline is of all requests");
});

test("ten thousand requests in flight leave the page usable", async () => {
  const page = await open("many");
  assert.match(await text(page, "#flights-count"), /^100 of 10,000, oldest first; filter to see the others$/);
  assert.equal(await page.locator("#flights-rows tr").count(), 100);
  await page.evaluate(() => {
    window.longest = 0;
    let last = performance.now();
    const beat = () => {
      const now = performance.now();
      window.longest = Math.max(window.longest, now - last);
      last = now;
      requestAnimationFrame(beat);
    };
    requestAnimationFrame(beat);
    window.updates = 0;
    new MutationObserver(() => window.updates++).observe(document.querySelector("#foot"), { childList: true });
  });
  await page.waitForFunction(() => window.updates >= 3, null, { timeout: 30000 });
  assert.ok((await page.evaluate(() => window.longest)) < 500, "frames come while it is updated");
  await page.fill("#find", "build-board/9999");
  await page.waitForFunction(() => document.querySelectorAll("#flights-rows tr").length === 1, null, { timeout: 30000 });
  assert.match(await text(page, "#flights-rows"), /build-board\/9999/);
});

test("what is hostile in paths, users and settings stays text", async () => {
  for (const width of [1280, 390]) {
    const page = await open("hostile", { width });
    await page.locator("#flights-rows button.open").first().click();
    await page.waitForSelector("#panel .frames");
    assert.match(await text(page, "#panel .frames"), /<img src=x onerror/);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Stacks", exact: true }).first().click();
    await page.waitForSelector("#panel details");
    await page.keyboard.press("Escape");
    await page.locator("#failed-rows button.open").first().click();
    await page.waitForSelector("#panel[open]");
    assert.match(await text(page, "#panel-title"), /<img src=x onerror/);
    assert.equal(await page.evaluate(() => window.hurt), undefined);
    assert.equal(await page.evaluate(() => document.querySelectorAll("img, main script, dialog script, iframe").length), 0);
    await page.keyboard.press("Escape");
    const paths = await page.locator("#flights-rows .path").allInnerTexts();
    assert.ok(paths.some((one) => one.includes("\\u202eexe.txt")), "what turns the order around is shown as what it is");
    assert.ok(await fits(page), "nothing is wider than the window");
  }
});

// ---- actions ----

test("a worker is recycled after a question, and the answer is told", async () => {
  const page = await open("calm");
  const one = page.locator("#workers-list > li").nth(1);
  await one.getByRole("button", { name: "Recycle", exact: true }).click();
  assert.match(await one.locator(".ask").innerText(), /A new process takes the place of worker 1/);
  assert.equal((await asked(/^POST/)).length, 0, "nothing is done before the answer");
  await one.getByRole("button", { name: "Leave it" }).click();
  assert.equal(await one.locator(".ask").isVisible(), false);
  await one.getByRole("button", { name: "Recycle", exact: true }).click();
  await page.keyboard.press("Enter");
  await until("the action", async () => (await asked(/^POST \/workers\/1\/recycle$/)).length === 1);
  await one.getByText("A new process is started").waitFor();
  const three = page.locator("#workers-list > li").nth(3);
  await three.getByRole("button", { name: "Recycle", exact: true }).click();
  await three.getByRole("button", { name: "Recycle it" }).click();
  await three.getByText("Not done: worker 3 is being replaced already").waitFor();
  page.complaints = page.complaints.filter((line) => !line.includes("409"));
});

test("a worker is held, and resumed", async () => {
  const page = await open("calm");
  const two = page.locator("#workers-list > li").nth(2);
  await two.getByRole("button", { name: "Hold", exact: true }).click();
  await two.getByRole("button", { name: "Hold it" }).click();
  await two.getByText("ready, held").waitFor();
  await two.getByRole("button", { name: "Resume" }).click();
  await two.getByRole("button", { name: "Hold", exact: true }).waitFor();
  assert.deepEqual(await asked(/^POST/), ["POST /workers/2/hold", "POST /workers/2/resume"]);
});

test("one process that serves alone cannot be replaced", async () => {
  const page = await open("alone");
  assert.ok(await page.getByRole("button", { name: "Recycle", exact: true }).isDisabled());
  assert.ok(await page.getByRole("button", { name: "Hold", exact: true }).isDisabled());
  assert.ok(await page.getByRole("button", { name: "Stacks", exact: true }).isEnabled());
});

// ---- keys ----

test("the keyboard alone is enough", async () => {
  const page = await open("hung");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  const seen = new Set();
  for (let i = 0; i < 90; i++) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => {
      const e = document.activeElement;
      const style = getComputedStyle(e);
      if (e !== document.body && !["INPUT", "SELECT"].includes(e.tagName) && (style.outlineStyle === "none" || style.outlineWidth === "0px")) return "no focus to be seen: " + e.outerHTML.slice(0, 100);
      return e.id || (e.closest("#flights-rows") ? "row" : e.closest("#workers-list") ? "worker" : e.closest("#flow") ? "flow" : e.closest("#steps") ? "step" : e.closest("#slowest-rows") ? "slow" : e.tagName);
    }));
  }
  for (const stop of ["pause", "theme", "keys-open", "step", "flow", "find", "by-state", "row", "worker", "slow", "settings-find"]) assert.ok(seen.has(stop), stop + " is reached; seen: " + [...seen]);
  assert.deepEqual([...seen].filter((one) => one.startsWith("no focus")), []);
  await page.evaluate(() => document.activeElement.blur());

  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "find");
  await page.keyboard.type("catalogue");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#flights-rows tr").length === 1);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelectorAll("#flights-rows tr").length === 54);
  await page.keyboard.press("Escape");
  await page.keyboard.press("j");
  const at = () => page.evaluate(() => [...document.querySelectorAll("#flights-rows tr")].findIndex((row) => row.contains(document.activeElement)));
  assert.equal(await at(), 0);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("k");
  assert.equal(await at(), 1);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#panel[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#panel:not([open])", { state: "attached" });
  assert.equal(await at(), 1);
  await page.keyboard.press("?");
  await page.waitForSelector("#keys[open]");
  await page.keyboard.press("Escape");
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.body.dataset.link === "paused");
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.body.dataset.link === "live");
});

test("everything that can be used has a name", async () => {
  const page = await open("hung", { width: 390 });
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, a, input, select, [tabindex='0']")].filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || (e.labels && e.labels.length))).map((e) => e.outerHTML.slice(0, 120)));
  assert.deepEqual(nameless, []);
  assert.equal(await page.evaluate(() => document.querySelectorAll("h1").length), 1);
});

// ---- the connection ----

test("a lost connection is said, the last data is kept in grey, and it comes back by itself", async () => {
  const page = await open("calm");
  await fake.trouble("lost");
  await page.waitForFunction(() => /^The connection to the server is lost since .* What is below is of \d\d:\d\d:\d\d\.$/.test(document.querySelector("#headline").textContent));
  assert.equal(await page.locator("#flights-rows tr").count(), 6);
  assert.match(await page.evaluate(() => getComputedStyle(document.querySelector("#data")).filter), /grayscale/);
  assert.match(await page.title(), /^connection lost/);
  await fake.trouble("none");
  await page.waitForFunction(() => document.body.dataset.link === "live" && document.querySelector("#headline").textContent.startsWith("All is well"), null, { timeout: 15000 });
  page.complaints = page.complaints.filter((line) => !line.includes("Failed to load resource"));
});

test("a connection that says nothing is taken for lost", async () => {
  const page = await open("calm");
  await page.evaluate(() => {
    window.states = [];
    new MutationObserver(() => window.states.push(document.body.dataset.link + ": " + document.querySelector("#link-text").textContent)).observe(document.body, { attributeFilter: ["data-link"] });
  });
  await fake.trouble("silent");
  await page.waitForFunction(() => window.states.some((one) => one.startsWith("lost")), null, { timeout: 15000 });
});

test("who has no token reads how to give it", async () => {
  const page = await open("calm");
  await fake.trouble("token");
  await page.waitForFunction(() => document.querySelector("#headline").textContent.startsWith("The server asks for its admin token"));
  assert.equal(await page.locator("body").getAttribute("data-link"), "refused");
  page.complaints = page.complaints.filter((line) => !line.includes("401") && !line.includes("Failed to load resource"));
});

test("a page that nobody sees asks for nothing", async () => {
  const page = await open("calm");
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  assert.equal(await page.locator("body").getAttribute("data-link"), "paused");
  const before = (await fake.log()).length;
  const frozen = await text(page, "#foot");
  // Longer than all its timers.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 6500)));
  assert.equal((await fake.log()).length, before);
  assert.equal(await text(page, "#foot"), frozen);
  await page.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.waitForFunction((old) => document.body.dataset.link === "live" && document.querySelector("#foot").textContent !== old, frozen);
});

// ---- looks ----

for (const width of [1280, 390])
  for (const dark of [false, true])
    test(`at ${width} pixels, ${dark ? "dark" : "light"}: nothing is too wide, and every text can be read`, async () => {
      for (const scenario of ["calm", "hung", "hostile"]) {
        const page = await open(scenario, { width, dark });
        assert.ok(await fits(page), scenario + ": nothing is wider than the window");
        const check = () => page.evaluate(() => {
          // Contrast of each text with what is behind it: WCAG 2.1, 1.4.3.
          const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const poor = new Set();
          for (const e of document.querySelectorAll("body *")) {
            if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length || e.closest(".hidden, .skip, option, button:disabled, canvas")) continue;
            const dialog = document.querySelector("dialog[open]");
            if (dialog && !dialog.contains(e)) continue;
            const style = getComputedStyle(e);
            let behind = [255, 255, 255];
            for (let up = e; up; up = up.parentElement) {
              const c = parse(getComputedStyle(up).backgroundColor);
              if (c.length === 3 || c[3] === 1) {
                behind = c;
                break;
              }
            }
            const [a, b] = [light(parse(style.color)), light(behind)].sort((x, y) => y - x);
            const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < (large ? 3 : 4.5)) poor.add(ratio.toFixed(2) + " " + e.tagName + "." + e.className + " " + e.textContent.slice(0, 30));
          }
          return [...poor];
        });
        assert.deepEqual(await check(), [], scenario);
        await page.locator("#flights-rows button.open").first().click();
        await page.waitForSelector("#panel .frames");
        assert.ok(await page.evaluate(() => document.querySelector("#panel").scrollWidth <= innerWidth), scenario + ": the panel is not too wide");
        assert.deepEqual(await check(), [], scenario + ", the panel");
      }
    });

test("dark and light are chosen by the system, or by hand and remembered", async () => {
  const page = await open("calm", { dark: true });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  assert.equal(await text(page, "#theme"), "Light");
  await page.click("#theme");
  const light = await ground();
  assert.notEqual(light, dark);
  await page.reload();
  await page.waitForFunction(() => document.body.dataset.link === "live");
  assert.equal(await ground(), light);
  await page.keyboard.press("d");
  assert.equal(await ground(), dark);
});

test("a setting is found by name, value or source", async () => {
  const page = await open("calm");
  assert.match(await page.locator("#settings-rows tr").first().innerText(), /--threads|weir\.yaml|--admin|WEIR_CONFIG/, "what is set stands first");
  await page.fill("#settings-find", "--threads");
  await page.waitForFunction(() => document.querySelectorAll("#settings-rows tr").length === 1);
  assert.match(await text(page, "#settings-rows"), /threads\s+8\s+--threads/);
});

test("the page comes whole and small, and does not jump", async () => {
  const answer = await fetch(fake.url, { headers: { "Accept-Encoding": "gzip" } });
  const length = Number(answer.headers.get("content-length"));
  assert.equal(answer.headers.get("content-encoding"), "gzip");
  assert.ok(length <= 150 * 1024, length + " bytes");
  const paints = [];
  for (let i = 0; i < 3; i++) {
    const page = await open("calm", {
      before: () => {
        window.shift = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((e) => ((window.shift += e.value), (window.shifted = (window.shifted || []).concat(e.value.toFixed(3), e.sources.map((s) => (s.node && (s.node.id || s.node.className || s.node.nodeName)) + JSON.stringify(s.previousRect) + JSON.stringify(s.currentRect))))))).observe({ type: "layout-shift", buffered: true });
      },
    });
    paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    assert.ok((await page.evaluate(() => window.shift)) < 0.1, "it does not jump when data comes: " + (await page.evaluate(() => window.shifted.join(" "))));
    const loaded = await page.evaluate(() => performance.getEntriesByType("resource").map((e) => new URL(e.name).pathname));
    assert.deepEqual([...new Set(loaded)].sort(), ["/events", "/history.json", "/status.json"].filter((name) => loaded.includes(name)));
  }
  assert.ok(paints.every((ms) => ms > 0)); // how soon is measured by bench/run --only seeing-page
});

// ---- running ----

const part = process.argv[2] || "";
fake = await fakeAdmin();
browser = await launch();
let failed = 0;
for (const { name, run } of tests.filter((t) => t.name.includes(part))) {
  let error = null;
  const began = Date.now();
  try {
    await Promise.race([run(), new Promise((_, reject) => setTimeout(() => reject(new Error("took longer than 60 s")), 60000).unref())]);
  } catch (e) {
    error = e.stack || String(e);
  }
  try {
    await closeAll();
  } catch (e) {
    error = error || e.stack || String(e);
  }
  if (error) failed++;
  process.stdout.write(JSON.stringify({ name, seconds: (Date.now() - began) / 1000, error }) + "\n");
}
await browser.close();
await fake.close();
process.exitCode = failed ? 1 : 0;
