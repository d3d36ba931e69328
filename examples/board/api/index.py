"""Board: a small AI application. A prompt goes in, a board of Debian packages comes out.

One request makes two calls to a language model and six to eight to a database, one after another,
and each of them blocks its thread. That is how such applications are written, and nothing here is
arranged to make it faster: it is the server's work to let many of them wait at the same time.

    POST /api/ai/build-board   {"prompt": "…"} -> {title, columns, timings, rehearsal, user}
    GET  /health               {status: "ok"} within milliseconds, without asking anybody
    GET  /                     a page that draws the board

Settings, all from the environment:

    DEEPSEEK_API_KEY, DEEPSEEK_BASE_URL, DEEPSEEK_MODEL   any chat-completions API
    SUPABASE_URL, SUPABASE_KEY                            PostgREST with the table `packages`
    BOARD_TOKENS       who may use it: "name:token,name:token".
    BOARD_JWT_SECRET_FILE   set: users are those whose signed token Weir has verified (weir.yaml).
                       With neither of the two any non-empty token is a user of that name, and only
                       this machine is answered.
    BOARD_TIMEOUT      seconds an upstream may stay silent, 60
    BOARD_REHEARSAL    what a stand-in answers for, "model", "database" or both with a comma between;
                       for the page and /health, as every answer finds out for itself

Limits, queue, deadline and CORS are the server's affair, and stand in weir.yaml. Under another server
than Weir the application runs without them.

Every answer but the page is JSON; an error is {"error": "…"} with a status that fits.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

BODY_BYTES_MAX = 64 * 1024
PROMPT_CHARS_MAX = 2000
# What a plan may ask for, whatever the model says: 5 columns x 3 queries x 10 rows.
COLUMNS_MAX = 5
QUERIES_MAX = 3
ROWS_PER_QUERY = 10
CARDS_MAX = 6
KINDS = ("program", "library", "documentation", "data")
CONNECT_SECONDS = 5

PLAN_INSTRUCTIONS = """\
You plan a board that helps a person with a task. The material is the catalogue of Debian packages.
Answer with one JSON object and nothing else:
{"title": a short title, "columns": [{"name": a short heading, "kind": "program" or "library" or
"documentation" or "any", "queries": [two English full-text queries of one or two words each]}]}
Three or four columns, each for one step or one side of the task. Headings in the language of the
person, queries always in English."""

SELECT_INSTRUCTIONS = """\
You select packages for a board. You are given JSON: the person's prompt, and columns with
candidates from the catalogue. Answer with one JSON object and nothing else:
{"columns": [{"name": the column's name, unchanged, "cards": [{"id": the id of a candidate of that
column, "why": one short sentence for this person}]}]}
Up to four cards in a column, the most useful first. No package twice. Leave out what
does not fit."""


class ApiError(Exception):
    """An answer that is not a board. The text goes to the client and names the cause."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


class UpstreamError(ApiError):
    """The model or the database failed us: 502."""

    def __init__(self, who: str, what: str) -> None:
        super().__init__(502, f"{who} {what}")


def read_tokens(text: str) -> dict[str, str]:
    """`name:token,name:token` as {token: name}. Raises ValueError for a part without a name."""
    tokens = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, token = part.partition(":")
        if not name or not token:
            raise ValueError("BOARD_TOKENS must look like name:token,name:token")
        tokens[token] = name
    return tokens


def read_timeout(text: str) -> float:
    """BOARD_TIMEOUT in seconds. Raises ValueError unless it is above 0 and at most 3600."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"BOARD_TIMEOUT must be seconds above 0, at most 3600, not {text!r}")
    return seconds


MODEL_KEY = os.environ.get("DEEPSEEK_API_KEY", "")
MODEL_URL = os.environ.get("DEEPSEEK_BASE_URL") or "https://api.deepseek.com"
MODEL_NAME = os.environ.get("DEEPSEEK_MODEL") or "deepseek-flash"
DATABASE_URL = os.environ.get("SUPABASE_URL", "")
DATABASE_KEY = os.environ.get("SUPABASE_KEY", "")
TOKENS = read_tokens(os.environ.get("BOARD_TOKENS", ""))
VERIFIED_BY_WEIR = bool(os.environ.get("BOARD_JWT_SECRET_FILE"))
OPEN = not TOKENS and not VERIFIED_BY_WEIR  # any token is a user
TIMEOUT = read_timeout(os.environ.get("BOARD_TIMEOUT") or "60")
REHEARSAL = [part for part in os.environ.get("BOARD_REHEARSAL", "").split(",") if part]

app = Flask(__name__, static_folder="../static", template_folder="../templates")


# --- who may ask ---------------------------------------------------------------------------------


def is_loopback(address: str) -> bool:
    """Is this the address of this very machine? A name other than localhost is not."""
    address = address.strip("[]")
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


@app.before_request
def only_this_machine() -> None:
    """Without tokens everybody is a user, so only this machine may be everybody.

    Three ways in from elsewhere are closed: a remote address, a proxy on this machine that passes
    strangers on, and a foreign page whose name was made to point here.
    """
    if not OPEN:
        return
    if not is_loopback(request.environ.get("REMOTE_ADDR") or ""):
        cause = "this address is not"
    elif any(request.headers.get(name) for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP")):
        cause = "a proxy that speaks for others is not"
    elif not is_loopback(re.sub(r":[0-9]*$", "", request.host)):
        cause = "this Host is not"
    else:
        return
    raise ApiError(
        403, f"No BOARD_TOKENS are set, so only this machine is answered, and {cause}."
    )


def authenticate() -> str:
    """The user's name. Raises ApiError 401.

    Under Weir a request without a token does not come here, because weir.yaml requires a user.
    """
    if VERIFIED_BY_WEIR:
        if request.environ.get("weir.user_by") == "jwt":
            return str(request.environ["weir.user"])
        raise ApiError(
            401,
            "No token was verified: only Weir does that, with the weir.yaml that `run` gives it",
            {"WWW-Authenticate": 'Bearer realm="board"'},
        )
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise ApiError(
            401,
            "Say who you are: Authorization: Bearer <token>",
            {"WWW-Authenticate": 'Bearer realm="board"'},
        )
    sent = token.encode("latin-1", errors="replace")  # WSGI hands bytes over as latin-1
    if OPEN:
        return sent.decode("utf-8", errors="replace")
    for known, name in TOKENS.items():
        if hmac.compare_digest(known.encode(), sent):
            return name
    raise ApiError(
        401,
        "This token is not known here",
        {"WWW-Authenticate": 'Bearer realm="board", error="invalid_token"'},
    )


def read_prompt() -> str:
    """The prompt of the body. Raises ApiError 400 or 413."""
    too_long = ApiError(413, f"The body is longer than {BODY_BYTES_MAX // 1024} KiB")
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise too_long
    body = request.stream.read(BODY_BYTES_MAX + 1)
    if len(body) > BODY_BYTES_MAX:
        raise too_long
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON: {error}") from None
    prompt = data.get("prompt") if isinstance(data, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise ApiError(400, 'The body must be {"prompt": "…"} with a prompt that is not empty')
    if len(prompt) > PROMPT_CHARS_MAX:
        raise ApiError(413, f"The prompt is longer than {PROMPT_CHARS_MAX} characters")
    if re.search(r"[\x00\ud800-\udfff]", prompt):
        raise ApiError(400, "The prompt holds characters that are not text")
    return prompt.strip()


# --- the model and the database ------------------------------------------------------------------


class Work:
    """One board in the making: where its time went, and whether stand-ins answered."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.seconds = {"ai": 0.0, "db": 0.0}
        self.rehearsal = False

    @contextmanager
    def spending(self, where: str) -> Iterator[None]:
        """Count the time of the block for `ai` or `db`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[where] += time.monotonic() - begun

    def timings(self) -> dict[str, float]:
        """Seconds, with milliseconds as decimals."""
        spent = {**self.seconds, "total": time.monotonic() - self.begun}
        return {name: round(seconds, 3) for name, seconds in spent.items()}


def failure(error: requests.RequestException) -> str:
    """Why a request failed, in words for the client: no addresses, no keys."""
    if isinstance(error, requests.ConnectTimeout):
        return f"could not be reached within {CONNECT_SECONDS} s"
    if isinstance(error, requests.Timeout):
        return f"was silent for {TIMEOUT:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "broke off in the middle of its answer"
    if isinstance(error, requests.ConnectionError):
        return "is down: the connection was refused or lost"
    return f"could not be asked ({type(error).__name__})"


def ask_model(work: Work, instructions: str, question: str) -> dict[str, Any]:
    """One chat completion in JSON mode. Raises UpstreamError."""
    who = "The model API"
    with work.spending("ai"):
        try:
            reply = requests.post(
                f"{MODEL_URL.rstrip('/')}/chat/completions",
                headers={"Authorization": f"Bearer {MODEL_KEY}"},
                json={
                    "model": MODEL_NAME,
                    "messages": [
                        {"role": "system", "content": instructions},
                        {"role": "user", "content": question},
                    ],
                    "response_format": {"type": "json_object"},
                    "stream": False,
                },
                timeout=(CONNECT_SECONDS, TIMEOUT),
            )
        except requests.RequestException as error:
            app.logger.warning("model: %s", error)
            raise UpstreamError(who, failure(error)) from None
    if reply.status_code != 200:
        app.logger.warning("model: HTTP %d: %.200s", reply.status_code, reply.text)
        raise UpstreamError(who, f"answered with status {reply.status_code}")
    work.rehearsal |= reply.headers.get("X-Rehearsal") == "yes"
    try:
        answer = json.loads(reply.json()["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        app.logger.warning("model: a completion without a JSON object in it")
        raise UpstreamError(who, "answered with something that is not a JSON object")
    return answer


def query_packages(work: Work, filters: dict[str, str]) -> list[dict[str, Any]]:
    """Rows {id, name, summary} of the catalogue. Raises UpstreamError."""
    who = "The database"
    with work.spending("db"):
        try:
            reply = requests.get(
                f"{DATABASE_URL.rstrip('/')}/rest/v1/packages",
                headers={"apikey": DATABASE_KEY, "Authorization": f"Bearer {DATABASE_KEY}"},
                params={"select": "id,name,summary", "limit": str(ROWS_PER_QUERY), **filters},
                timeout=(CONNECT_SECONDS, TIMEOUT),
            )
        except requests.RequestException as error:
            app.logger.warning("database: %s", error)
            raise UpstreamError(who, failure(error)) from None
    if reply.status_code not in (200, 206):
        app.logger.warning("database: HTTP %d: %.200s", reply.status_code, reply.text)
        raise UpstreamError(who, f"answered with status {reply.status_code}")
    work.rehearsal |= reply.headers.get("X-Rehearsal") == "yes"
    try:
        rows = [
            {"id": row["id"], "name": str(row["name"]), "summary": str(row["summary"])}
            for row in reply.json()
            if isinstance(row["id"], (int, str))
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        app.logger.warning("database: an answer that is not rows of the catalogue")
        raise UpstreamError(who, "answered with something that is not the catalogue") from None
    return rows


# --- the board -----------------------------------------------------------------------------------


def plan_board(work: Work, prompt: str) -> tuple[str, list[dict[str, Any]]]:
    """(title, columns [{name, kind, queries}]). The first call to the model."""
    plan = ask_model(work, PLAN_INSTRUCTIONS, prompt)
    columns = []
    wanted = plan.get("columns")
    for entry in wanted if isinstance(wanted, list) else []:
        queries = entry.get("queries") if isinstance(entry, dict) else None
        if not isinstance(queries, list):
            continue
        queries = [query for query in queries if isinstance(query, str) and query.strip()]
        if isinstance(entry.get("name"), str) and queries:
            kind = entry.get("kind") if entry.get("kind") in KINDS else None
            columns.append({"name": entry["name"], "kind": kind, "queries": queries[:QUERIES_MAX]})
    if not columns:
        raise UpstreamError("The model API", "answered with something that is not a plan")
    title = plan.get("title")
    return title if isinstance(title, str) and title else prompt[:80], columns[:COLUMNS_MAX]


def search(work: Work, column: dict[str, Any]) -> list[dict[str, Any]]:
    """Candidates for a column: one query of the database for each query of the plan."""
    found: dict[Any, dict[str, Any]] = {}
    for query in column["queries"]:
        filters = {"description": f"wfts(english).{query}"}
        if column["kind"]:
            filters["kind"] = f"eq.{column['kind']}"
        for row in query_packages(work, filters):
            found.setdefault(row["id"], row)
    return list(found.values())


def select_cards(work: Work, prompt: str, columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Columns [{name, cards: [{id, title, summary, why}]}]. The second call to the model."""
    answer = ask_model(
        work,
        SELECT_INSTRUCTIONS,
        json.dumps({"prompt": prompt, "columns": columns}, ensure_ascii=False),
    )
    chosen = answer.get("columns")
    if not isinstance(chosen, list):
        raise UpstreamError("The model API", "answered with something that is not a selection")
    picks = {
        str(entry.get("name")): entry.get("cards") for entry in chosen if isinstance(entry, dict)
    }
    board = []
    for column in columns:
        # Only what the search found: a model may invent an id, or take one twice.
        known = {str(row["id"]): row for row in column["candidates"]}
        cards = []
        cards_wanted = picks.get(column["name"])
        for card in cards_wanted if isinstance(cards_wanted, list) else []:
            row = known.pop(str(card.get("id")), None) if isinstance(card, dict) else None
            if row and len(cards) < CARDS_MAX:
                why = card.get("why")
                cards.append(
                    {
                        "id": row["id"],
                        "title": row["name"],
                        "summary": row["summary"],
                        "why": why if isinstance(why, str) else "",
                    }
                )
        board.append({"name": column["name"], "cards": cards})
    return board


@app.post("/api/ai/build-board")
def build_board() -> Response:
    user = authenticate()
    prompt = read_prompt()
    work = Work()
    title, columns = plan_board(work, prompt)
    for column in columns:
        column["candidates"] = search(work, column)
    columns = [column for column in columns if column["candidates"]]
    board = select_cards(work, prompt, columns) if columns else []
    return jsonify(
        title=title,
        columns=[column for column in board if column["cards"]],
        timings=work.timings(),
        rehearsal=work.rehearsal,
        user=user,
    )


# --- everything else -----------------------------------------------------------------------------


@app.get("/health")
def health() -> Response:
    return jsonify(status="ok", app="board", rehearsal=bool(REHEARSAL), open=OPEN)


@app.get("/")
def page() -> str:
    return render_template(
        "board.html", rehearsal=REHEARSAL, open=OPEN, prompt_chars_max=PROMPT_CHARS_MAX
    )


@app.after_request
def harden(response: Response) -> Response:
    """The page needs nothing from anywhere else, so the browser may refuse it."""
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if request.path.startswith("/api/"):
        response.headers["Cache-Control"] = "no-store"
    return response


@app.errorhandler(ApiError)
def api_error(error: ApiError) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error=str(error)), error.status, error.headers


@app.errorhandler(HTTPException)
def http_error(error: HTTPException) -> Response:
    """404, 405 and the like: Flask's own answer, its headers kept, its page made JSON."""
    response = error.get_response()
    response.data = json.dumps({"error": f"{error.code} {error.name}"})
    response.content_type = "application/json"
    return response


@app.errorhandler(Exception)
def unexpected(error: Exception) -> tuple[Response, int]:
    app.logger.exception("unexpected: %s", type(error).__name__)
    return jsonify(error="The board has a defect; its log says where."), 500


if __name__ == "__main__":
    from weir import serve

    serve(app, host="127.0.0.1", port=int(os.environ.get("PORT", "5000")), threads=64)
