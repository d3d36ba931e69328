// The connection to the server: the state once, then events, and again after a break.
//
// States: "connecting", "live", "lost" (tried again, later and later, up to 8 s), "refused" (the server asks for a token,
// or does not take this name), "paused" (by hand, or since nobody looks). While paused the server is asked nothing.

const SILENCE_MS = 5000;
const RETRY_MS_MAX = 8000;

class Link {
  // on: {status(object), point(object), history(object), state(word, text)}
  constructor(on) {
    this.on = on;
    this.query = "";
    this.state = "";
    this.tries = 0;
    this.turn = 0;
    this.heard = 0;
    this.lostAt = 0;
    this.columns = null;
    setInterval(() => this.watch(), 1000);
  }

  // Begin, or begin anew with another query.
  open(query) {
    if (query !== undefined) this.query = query;
    this.close();
    if (this.state !== "lost" && this.state !== "live") this.say("connecting", "");
    const turn = ++this.turn;
    this.begin(turn).catch((error) => {
      if (turn === this.turn) this.fail(error);
    });
  }

  close() {
    this.turn++;
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
    if (this.abort) this.abort.abort();
    this.abort = null;
  }

  pause(why) {
    this.close();
    this.say("paused", why);
  }

  say(state, text) {
    if (state === "lost" && this.state !== "lost") this.lostAt = Date.now();
    this.state = state;
    this.on.state(state, text);
  }

  async get(path) {
    this.abort = this.abort || new AbortController();
    const limit = setTimeout(() => this.abort && this.abort.abort(), SILENCE_MS);
    try {
      const answer = await fetch(path, { signal: this.abort.signal, cache: "no-store" });
      if (!answer.ok) {
        const error = new Error("the server answers " + answer.status);
        error.status = answer.status;
        throw error;
      }
      return await answer.json();
    } finally {
      clearTimeout(limit);
    }
  }

  async begin(turn) {
    const again = this.columns && Date.now() - this.heard < 3000;
    const [status, history] = await Promise.all([this.get("status.json?" + this.query), again ? null : this.get("history.json")]);
    if (turn !== this.turn) return;
    if (history) {
      this.columns = history.columns;
      this.on.history(history);
    }
    this.heard = Date.now();
    this.live();
    this.on.status(status);
    const source = new EventSource("events?" + this.query);
    this.source = source;
    const mine = (handle) => (event) => {
      if (turn !== this.turn) return;
      this.heard = Date.now();
      this.tries = 0;
      this.live();
      handle(JSON.parse(event.data));
    };
    source.addEventListener("status", mine((data) => this.on.status(data)));
    source.addEventListener("point", mine((data) => this.on.point(Array.isArray(data) ? this.named(data) : data)));
    source.onerror = () => {
      if (turn === this.turn) this.fail(new Error("the connection broke"));
    };
  }

  named(row) {
    const point = {};
    (this.columns || []).forEach((name, i) => (point[name] = row[i]));
    return point;
  }

  live() {
    if (this.state !== "live") this.say("live", "");
  }

  fail(error) {
    this.close();
    if (error.status === 401 || error.status === 403)
      return this.say("refused", "The server asks for its admin token. Load this page again and give the token as the password; the user's name does not matter.");
    if (error.status === 421)
      return this.say("refused", "The server does not know itself by the name in the address bar. Ask by its IP address, or add the name as admin-host.");
    const wait = Math.min(1000 * 2 ** this.tries++, RETRY_MS_MAX);
    this.say("lost", "");
    this.timer = setTimeout(() => this.open(), wait);
  }

  // A connection that says nothing is none.
  watch() {
    if (this.state === "live" && Date.now() - this.heard > SILENCE_MS) this.fail(new Error("silence"));
  }
}
