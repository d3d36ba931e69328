// The walk of docs/hung.md through the status page of a real server, as its reader does it.
// usage: node hung_walk.mjs ADMIN_URL [FOLDER for screenshots]; prints one line of JSON: what each step showed.

import path from "node:path";
import { launch } from "./page_browser.mjs";

const [url, folder] = process.argv.slice(2);
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "dark", reducedMotion: "reduce" });
const page = await context.newPage();
const complaints = [];
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
const begun = Date.now();
const told = { complaints };

async function shot(name) {
  if (folder) await page.screenshot({ path: path.join(folder, name + ".png") });
}

// Filter for a path, open the oldest that is in the application, and read its stack.
async function look(what) {
  await page.locator("#find").fill("/" + what);
  await page.locator("#by-state").selectOption("application");
  await page.waitForFunction((w) => {
    const rows = [...document.querySelectorAll("#flights-rows tr")];
    return rows.length > 0 && rows.every((r) => r.textContent.includes("/" + w));
  }, what);
  await page.locator("#flights-rows button.open").first().click();
  await page.locator("#panel .frames .mine").waitFor();
  told[what] = await page.locator("#panel").innerText();
  await shot("hung-" + what);
  await page.keyboard.press("Escape");
}

await page.goto(url);
// 1. The headline, and what it advises.
await page.waitForFunction(() => document.body.dataset.level === "bad" && document.querySelector("#headline").textContent.includes("wait"));
await page.waitForFunction(() => document.querySelector("#steps").textContent.includes("lets nobody run"));
told.headline = await page.locator("#headline").innerText();
told.steps = await page.locator("#steps").innerText();
await shot("hung-headline");
// 2. The stacks of the worker whose threads are not let run.
await page.locator("#steps li", { hasText: "lets nobody run" }).getByRole("button").click();
await page.locator("#panel", { hasText: "holds the interpreter lock" }).locator(".frames").first().waitFor();
told.stacks = await page.locator("#panel").innerText();
await shot("hung-stacks");
await page.keyboard.press("Escape");
// 3. One request of each kind.
await look("match");
await look("spin");
await look("wait");
told.seconds = (Date.now() - begun) / 1000;
// 4. Recycle the worker that nothing else can help.
told.recycled = /Stacks of worker (\d+)/.exec(told.steps.slice(told.steps.indexOf("lets nobody run")))[1];
const card = page.locator("#workers-list > li").filter({ has: page.getByText("Worker " + told.recycled, { exact: true }) });
await card.getByRole("button", { name: "Recycle", exact: true }).click();
await card.getByRole("button", { name: "Recycle it" }).click();
await page.waitForFunction(() => document.querySelector("#workers-count").textContent.replace(/\u00a0/g, " ").includes("4 processes started"));
await browser.close();
console.log(JSON.stringify(told));
