// The screenshots of the docs. usage: node tests/browser/page_shots.mjs FOLDER [NAME…]
// Without a name: those of docs/img. Names: any of SHOTS.

import { spawnSync } from "node:child_process";
import path from "node:path";
import { fakeAdmin, launch } from "./page_browser.mjs";

const SHOTS = {
  "status-calm": { scenario: "calm", width: 1280, height: 860 },
  "status-hung": { scenario: "hung", width: 1280, height: 900, dark: true },
  "status-request": { scenario: "hung", width: 1280, height: 860, dark: true, open: true },
  "status-stacks": { scenario: "hung", width: 1280, height: 860, stacks: true },
  "status-phone": { scenario: "hung", width: 390, height: 844 },
  // To look at, beside those of the docs.
  "all-calm-dark": { scenario: "calm", width: 1280, height: 900, dark: true, full: true },
  "all-hung-light": { scenario: "hung", width: 1280, height: 900, full: true },
  "all-phone-light": { scenario: "hung", width: 390, height: 844, full: true },
  "all-phone-dark": { scenario: "calm", width: 390, height: 844, dark: true, full: true },
  "phone-request": { scenario: "hung", width: 390, height: 844, open: true },
  "many": { scenario: "many", width: 1280, height: 900 },
  "hostile": { scenario: "hostile", width: 1280, height: 900, full: true },
  "hostile-phone": { scenario: "hostile", width: 390, height: 844, full: true },
  "empty": { scenario: "empty", width: 1280, height: 900 },
  "lost": { scenario: "calm", width: 1280, height: 900, trouble: "lost" },
  "workers-ask": { scenario: "hung", width: 1280, height: 900, ask: true },
};

const [folder, ...names] = process.argv.slice(2);
if (!folder) throw new Error("usage: page_shots.mjs FOLDER [NAME…]");
const fake = await fakeAdmin();
const browser = await launch();
for (const name of names.length ? names : Object.keys(SHOTS).filter((n) => n.startsWith("status-"))) {
  const shot = SHOTS[name];
  await fake.scenario(shot.scenario);
  const context = await browser.newContext({ viewport: { width: shot.width, height: shot.height }, colorScheme: shot.dark ? "dark" : "light", reducedMotion: "reduce", isMobile: shot.width < 600 });
  const page = await context.newPage();
  page.on("console", (message) => console.error(name + ": " + message.text()));
  page.on("pageerror", (error) => console.error(name + ": " + error.stack));
  await page.goto(fake.url);
  await page.waitForFunction(() => document.body.dataset.link === "live" && document.querySelector("#link-text").textContent === "live");
  if (shot.open) {
    await page.locator("#flights-rows button.open").nth(0).click();
    await page.waitForSelector("#panel .frames");
  }
  if (shot.stacks) {
    await page.getByRole("button", { name: "Stacks", exact: true }).nth(1).click();
    await page.waitForSelector("#panel .frames");
  }
  if (shot.ask) {
    await page.getByRole("button", { name: "Recycle", exact: true }).nth(1).click();
  }
  if (shot.trouble) {
    await fake.trouble(shot.trouble);
    await page.waitForSelector('body[data-link="lost"]');
  }
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const file = path.join(folder, name + ".png");
  await page.screenshot({ path: file, fullPage: Boolean(shot.full) });
  // A third of the size, where Debian's pngquant is there.
  spawnSync("pngquant", ["--force", "--skip-if-larger", "--output", file, "128", file]);
  await context.close();
}
await browser.close();
await fake.close();
