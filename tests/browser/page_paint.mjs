// How soon the status page of a real server is painted, and what it weighs. Run by bench/run --only seeing-page.
// usage: node page_paint.mjs URL; prints {"bytes": …, "paints": [ms, …]}

import { launch } from "./page_browser.mjs";

const url = process.argv[2];
const answer = await fetch(url, { headers: { "Accept-Encoding": "gzip" } });
const bytes = Number(answer.headers.get("content-length"));
const browser = await launch();
const paints = [];
for (let i = 0; i < 6; i++) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
  await context.close();
}
await browser.close();
console.log(JSON.stringify({ bytes, paints: paints.slice(1) })); // the first one starts the browser's parts
