// Elements and texts. What comes from the server becomes text nodes, never markup.

const $ = (id) => document.getElementById(id);

// Characters that are not seen, or turn the order of others around, as what they are: \u202e.
const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

function plain(text) {
  return String(text).replace(UNSEEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

// h("td", {class: "n"}, "text", child…): on… are listeners, other names are attributes.
function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child != null).map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

// Change a text only when it is another one: selections and screen readers stay calm.
function put(node, text) {
  text = plain(text);
  if (node.shown !== text) {
    node.shown = text;
    node.textContent = text;
  }
}

function attr(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

// Make the children of `parent` those of `items`: nodes stay with their key, so focus and scroll do.
function keep(parent, items, keyOf, make, update) {
  const old = parent.kept || new Map();
  const next = new Map();
  for (const item of items) {
    let key = String(keyOf(item));
    while (next.has(key)) key += "'";
    next.set(key, { item, node: old.get(key) });
  }
  for (const [key, node] of old) if (!next.has(key)) node.remove();
  let at = parent.firstChild;
  const kept = new Map();
  for (const [key, one] of next) {
    const node = one.node || make(one.item);
    node.item = one.item;
    update(node, one.item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    kept.set(key, node);
  }
  parent.kept = kept;
}

const NBSP = "\u00a0";
const NONE = "\u2013";

function number(n) {
  return n == null ? NONE : Math.round(n).toLocaleString("en-US");
}

// A figure by the second: one place after the point while it is small.
function rate(n) {
  if (n == null) return NONE;
  return n >= 100 || Number.isInteger(n) ? number(n) : n.toFixed(1);
}

// Seconds, for people.
function time(s) {
  if (s == null || !Number.isFinite(s)) return NONE;
  if (s < 0) s = 0;
  if (s === 0) return "0" + NBSP + "s";
  if (s < 0.001) return "<" + NBSP + "1" + NBSP + "ms";
  if (s < 0.0095) return (s * 1000).toFixed(1) + NBSP + "ms";
  if (s < 0.9995) return Math.round(s * 1000) + NBSP + "ms";
  if (s < 9.95) return s.toFixed(1) + NBSP + "s";
  if (s < 119.5) return Math.round(s) + NBSP + "s";
  if (s < 3600) return Math.floor(s / 60) + NBSP + "min" + (s < 600 ? NBSP + Math.floor(s % 60) + NBSP + "s" : "");
  if (s < 86400) return Math.floor(s / 3600) + NBSP + "h" + NBSP + Math.floor((s % 3600) / 60) + NBSP + "min";
  return Math.floor(s / 86400) + NBSP + "d" + NBSP + Math.floor((s % 86400) / 3600) + NBSP + "h";
}

function ago(s) {
  if (s < 1) return "now";
  if (s < 120) return Math.floor(s) + NBSP + "s ago";
  return time(s < 3600 ? Math.floor(s / 60) * 60 : Math.floor(s)).replace(/\u00a00\u00a0s$/, "") + " ago";
}

function bytes(n) {
  if (n == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    i++;
  }
  return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + NBSP + units[i];
}

function clock(at) {
  const d = new Date(at * 1000);
  const two = (n) => String(n).padStart(2, "0");
  return two(d.getHours()) + ":" + two(d.getMinutes()) + ":" + two(d.getSeconds());
}

function plural(n, one, many) {
  return number(n) + NBSP + (n === 1 ? one : many || one + "s");
}

function remember(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch {
    // A browser that keeps nothing: the page works without.
  }
  return null;
}

// Give a text to the clipboard; true when it is there.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS only loopback pages have the clipboard; the old way works in all.
    const area = h("textarea", { class: "hidden", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    const before = document.activeElement;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (before) before.focus();
    return done;
  }
}
