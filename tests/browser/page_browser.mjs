// Debian's Chromium under Playwright, and the fake admin listener: shared by tests and screenshots.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { chromium } from "playwright-core";

const HERE = path.dirname(fileURLToPath(import.meta.url));

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
  });
}

// {url, scenario(name), trouble(name), crash(), log(), close()}
export async function fakeAdmin() {
  const process_ = spawn("/usr/bin/python3", [path.join(HERE, "fake_admin.py")], { stdio: ["pipe", "pipe", "inherit"] });
  const port = await new Promise((resolve, reject) => {
    createInterface(process_.stdout).once("line", resolve);
    process_.once("exit", (code) => reject(new Error("fake_admin.py ended with " + code)));
  });
  const url = "http://127.0.0.1:" + port + "/";
  const post = async (what) => {
    const answer = await fetch(url + "fake/" + what, { method: "POST" });
    if (!answer.ok) throw new Error(what + ": " + answer.status);
  };
  return {
    url,
    scenario: (name) => post("scenario?name=" + name),
    trouble: (name) => post("trouble?name=" + name),
    crash: () => post("crash"),
    log: async () => (await fetch(url + "fake/log")).json(),
    close: () => new Promise((resolve) => {
      process_.once("exit", resolve);
      process_.stdin.end();
    }),
  };
}
