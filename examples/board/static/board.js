// The board's page: sends the prompt, shows that it waits, draws what comes back.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const form = at("form");
  const prompt = at("prompt");
  const token = at("token");
  const open = token.type !== "password";
  let running = null; // the AbortController of the request under way

  // A text never becomes markup: everything goes in as textContent.
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  const remembered = () => {
    try { return sessionStorage.getItem("board-user"); } catch { return null; }
  };
  const remember = (name) => {
    try { sessionStorage.setItem("board-user", name); } catch { /* private window */ }
  };

  const showError = (text) => {
    at("error").textContent = text;
    at("error").hidden = false;
    at("error").scrollIntoView({ block: "nearest" });
  };

  const seconds = (value) => `${Number(value).toFixed(1)} s`;

  // "in 6 s", "in 3 min"; rounded up, so that who waits so long has waited long enough.
  const later = (wait) =>
    !(wait > 0) ? "later" : wait <= 90 ? `in ${Math.ceil(wait)} s`
      : wait <= 5400 ? `in ${Math.ceil(wait / 60)} min` : `in ${Math.ceil(wait / 3600)} h`;

  // What the server answered in place of the application, in words: docs/refusals.md of Weir.
  const refusal = (answer) => {
    const again = `Ask again ${later(answer.retry_after)}.`;
    const others = answer.position - 1;
    const before = others > 1 ? `${others} are waiting before you` : others ? "one is waiting before you" : "";
    const expected = answer.expected_wait > 0 ? `your turn would come ${later(answer.expected_wait)}` : "";
    const queue = [before, expected].filter(Boolean).join(", and ");
    switch (answer.reason) {
      case "no_credentials": return "Say first who you are.";
      case "bad_credentials": return open ? "This name cannot be used." : "This access token is wrong or has expired.";
      case "bad_credentials_often": return `Too many wrong tokens came from here. ${again}`;
      case "tier": return "Your account does not include boards.";
      case "rate_limited": return `That was too fast: ${answer.limit === "user" ? "you have" : "many have"} asked often just now. ${again}`;
      case "quota_day": return `Your boards of today are used up. ${again}`;
      case "quota_month": return `Your boards of this month are used up. ${again}`;
      case "queue_full":
      case "queue_late": return `Too many boards are being drawn${queue ? `: ${queue}` : ""}. ${again}`;
      case "queue_wait": return `You have waited, and no place became free${before ? `: ${before}` : ""}. ${again}`;
      case "deadline": return "The board took too long and was given up.";
      default: return `${answer.detail || answer.title || "The server refused."} ${again}`;
    }
  };

  const drawBoard = (board) => {
    at("title").textContent = board.title;
    const timings = at("timings");
    timings.replaceChildren(make("b", seconds(board.timings.total)),
      ` in all: model ${seconds(board.timings.ai)}, database ${seconds(board.timings.db)}` +
      (board.rehearsal ? " · rehearsal" : ""));
    at("empty").hidden = board.columns.length > 0;
    at("columns").replaceChildren(...board.columns.map((column) => {
      const section = make("section", undefined, "column");
      const heading = make("h3", column.name);
      heading.append(make("span", String(column.cards.length)));
      section.append(heading, ...column.cards.map((card) => {
        const article = make("article", undefined, "card");
        article.append(make("h4", card.title), make("p", card.summary));
        if (card.why) article.append(make("p", card.why, "why"));
        return article;
      }));
      return section;
    }));
    at("board").hidden = false;
    at("title").focus({ preventScroll: true });
    at("board").scrollIntoView({ block: "nearest" });
  };

  const ask = async (text, user, signal) => {
    let response;
    try {
      response = await fetch("/api/ai/build-board", {
        method: "POST",
        headers: { "Content-Type": "application/json", "Authorization": `Bearer ${user}` },
        body: JSON.stringify({ prompt: text }),
        signal,
      });
    } catch (error) {
      if (signal.aborted) return null;
      throw new Error("The server cannot be reached. Is it still running?");
    }
    let answer = null;
    try { answer = await response.json(); } catch { /* not JSON: told below */ }
    if (signal.aborted) return null;
    if (!response.ok && answer?.reason) throw new Error(refusal(answer));
    if (!response.ok) {
      throw new Error(answer?.error || `The server answered with status ${response.status}.`);
    }
    if (!Array.isArray(answer?.columns)) throw new Error("The server's answer is not a board.");
    return answer;
  };

  const wait = (on) => {
    // One button takes the other's place; a focus on it goes along.
    const [shown, gone] = on ? [at("stop"), at("go")] : [at("go"), at("stop")];
    const focused = document.activeElement === gone;
    shown.hidden = false;
    if (focused) shown.focus();
    gone.hidden = true;
    at("progress").hidden = !on;
    form.setAttribute("aria-busy", String(on));
    at("status").textContent = on ? "Planning, searching, selecting. This takes some seconds." : "";
  };

  const submit = async () => {
    if (running) return;
    const text = prompt.value.trim();
    const user = token.value.trim();
    at("error").hidden = true;
    if (!text) {
      showError("Say first what you want to do.");
      prompt.focus();
      return;
    }
    if (!/^[\x21-\x7e]+$/.test(user)) {
      showError(open
        ? "Your name goes into a header: letters a to z, digits and signs, without spaces."
        : "Enter your access token; it has no spaces.");
      token.focus();
      return;
    }
    if (open) remember(user);
    running = new AbortController();
    at("board").hidden = true;
    wait(true);
    const begun = performance.now();
    const tick = () => { at("clock").textContent = seconds((performance.now() - begun) / 1000); };
    tick();
    const clock = setInterval(tick, 100);
    let board = null;
    let failure = "";
    try {
      board = await ask(text, user, running.signal);
    } catch (error) {
      failure = error.message;
    }
    clearInterval(clock);
    running = null;
    wait(false);
    if (board) drawBoard(board);
    else if (failure) showError(failure);
    if (!board) prompt.focus();
  };

  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  at("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  at("ideas").addEventListener("click", (event) => {
    const idea = event.target.closest("button");
    if (!idea) return;
    prompt.value = idea.textContent;
    prompt.focus();
  });

  if (open && remembered()) token.value = remembered();
  if (matchMedia("(hover: hover)").matches) prompt.focus();
})();
