#!/usr/bin/python3
"""The rehearsal server: a model and a database to practise with, without keys and without cost.

It speaks two protocols on one port of this machine:

    POST /chat/completions, /v1/chat/completions   the chat-completions protocol, whole or streamed
    GET  /rest/v1/packages                         PostgREST over the catalogue (postgrest.py)

and takes its time like the services it stands in for: 2-4 s for a chat call, 100-500 ms for a
query. Plans come from keywords (planner.py), never from a model; every answer carries the header
`X-Rehearsal: yes` so that an application can say so.

Of the chat-completions protocol it knows model, messages, stream, stream_options.include_usage
and response_format; it ignores the rest. A user message that is a JSON object with columns and
candidates is answered with a selection, any other in JSON mode with a plan, and without JSON mode
with two sentences. Any non-empty key is accepted.

One thread for each connection: it carries some hundred that wait. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import queue
import random
import re
import signal
import sqlite3
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import catalogue
import planner
import postgrest

BODY_BYTES_MAX = 4 * 1024 * 1024
IDLE_SECONDS = 75
DATABASE_CONNECTIONS = 4
CHAT_PATHS = ("/chat/completions", "/v1/chat/completions")
REST_PREFIX = "/rest/v1/"
MODEL = "rehearsal"
PROSE = (
    "This is the rehearsal server: it plans boards by keywords, and no model reads what you "
    "write. Ask for a JSON object to get a plan."
)


class Delay:
    """Waiting times drawn evenly from a span, the same ones in the same order for one seed."""

    def __init__(self, span: tuple[float, float], seed: int | None) -> None:
        self.span = span
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def draw(self) -> float:
        """The next waiting time in seconds."""
        with self._lock:
            return self._random.uniform(*self.span)


def wait_until(instant: float) -> None:
    """Sleep until an instant of the monotonic clock; returns at once when it has passed."""
    left = instant - time.monotonic()
    if left > 0:
        time.sleep(left)


# --- the database --------------------------------------------------------------------------------


class Database:
    """Read-only connections that request threads borrow, and answers to repeated queries."""

    def __init__(self, path: Path) -> None:
        self._free: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for _ in range(DATABASE_CONNECTIONS):
            self._free.put(catalogue.connect(path))
        # As a database keeps its pages in memory, so that many equal queries cost one.
        self.answer = functools.lru_cache(maxsize=1024)(self._answer)

    def _answer(
        self, params: tuple[tuple[str, str], ...], headers: tuple[tuple[str, str], ...]
    ) -> tuple[int, str, bytes]:
        """(status, Content-Range, JSON) of a GET. Raises PostgrestError."""
        wanted = postgrest.parse(list(params), dict(headers))
        db = self._free.get()
        try:
            found, total = postgrest.run(db, wanted)
        finally:
            self._free.put(db)
        status, span = postgrest.content_range(wanted, len(found), total)
        if "vnd.pgrst.object" in dict(headers).get("accept", ""):
            if len(found) != 1:
                raise postgrest.PostgrestError(
                    406,
                    "PGRST116",
                    "JSON object requested, multiple (or no) rows returned",
                    f"The result contains {len(found)} rows",
                )
            return status, span, encode(found[0])
        return status, span, encode(found)


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", errors="replace"
    )


# --- the model -----------------------------------------------------------------------------------


class ChatError(Exception):
    """A refusal in the protocol's shape: {"error": {message, type, param, code}}."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": kind}}


def bad_request(message: str, param: str | None = None) -> ChatError:
    return ChatError(400, message, "invalid_request_error", param)


def read_chat(body: bytes) -> dict[str, Any]:
    """The request of a chat call. Raises ChatError (400) naming the member that is wrong."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"The body is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise bad_request("The body must be a JSON object")
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise bad_request("model must be a non-empty string", "model")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a non-empty list", "messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("each message must be an object with a role", "messages")
        if not isinstance(message.get("content"), str):
            raise bad_request("the content of a message must be a string", "messages")
    if not isinstance(request.get("stream", False), (bool, type(None))):
        raise bad_request("stream must be true or false", "stream")
    for member in ("stream_options", "response_format"):
        if not isinstance(request.get(member), (dict, type(None))):
            raise bad_request(f"{member} must be an object", member)
    return request


def reply_to(request: dict[str, Any]) -> str:
    """What the model would say."""
    users = [message["content"] for message in request["messages"] if message["role"] == "user"]
    if not users:
        return PROSE
    try:
        asked = json.loads(users[-1])
        if isinstance(asked, dict) and "columns" in asked:
            return json.dumps(planner.select(asked), ensure_ascii=False)
    except (ValueError, RecursionError):
        pass  # an ordinary prompt
    if (request.get("response_format") or {}).get("type") != "json_object":
        return PROSE
    return json.dumps(planner.plan(users[-1]), ensure_ascii=False)


def usage(request: dict[str, Any], reply: str) -> dict[str, Any]:
    """Token counts, estimated at four characters each as no tokenizer is here."""
    prompt = sum(len(message["content"]) for message in request["messages"]) // 4 + 1
    completion = len(reply) // 4 + 1
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": prompt,
    }


def completion(number: int, request: dict[str, Any], reply: str) -> dict[str, Any]:
    """The whole answer of a call that is not streamed."""
    return {
        "id": f"rehearsal-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(request, reply),
        "system_fingerprint": MODEL,
    }


def chunks(number: int, request: dict[str, Any], reply: str) -> Iterator[dict[str, Any]]:
    """The parts of a streamed answer, in order; [DONE] is the caller's."""
    wants_usage = (request.get("stream_options") or {}).get("include_usage") is True
    common: dict[str, Any] = {
        "id": f"rehearsal-{number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": MODEL,
        "system_fingerprint": MODEL,
    }
    if wants_usage:
        common["usage"] = None

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**common, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in re.findall(r"\s*\S{1,24}|\s+", reply):
        yield chunk({"content": piece})
    yield chunk({"content": ""}, "stop")
    if wants_usage:
        yield {**common, "choices": [], "usage": usage(request, reply)}


# --- HTTP ----------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Listens on loopback; holds what the handlers share."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self,
        address: tuple[str, int],
        database: Database,
        delay_ai: Delay,
        delay_db: Delay,
    ) -> None:
        self.database = database
        self.delay_ai = delay_ai
        self.delay_db = delay_db
        self._number = 0
        self._number_lock = threading.Lock()
        super().__init__(address, Handler)

    def next_number(self) -> int:
        """Numbers the chat calls, from 1."""
        with self._number_lock:
            self._number += 1
            return self._number

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no event; everything else is printed as usual."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection. Answers are written whole, in one piece, unless they are streamed."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "board-rehearsal"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the server in front has the access log."""

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Errors of the HTTP layer itself, as JSON."""
        self.close_connection = True
        self.answer(code, encode({"error": {"message": message or HTTPStatus(code).phrase}}))

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Rehearsal", "yes")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        arrived = time.monotonic()
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            self.send_error(411, "Content-Length is required")
            return
        if int(length) > BODY_BYTES_MAX:
            self.send_error(413, f"The body is longer than {BODY_BYTES_MAX} bytes")
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        if path in CHAT_PATHS:
            try:
                self.chat(body, arrived)
            except ChatError as error:
                self.answer(error.status, encode(error.body))
        elif path.startswith(REST_PREFIX):
            self.rest(arrived)
        else:
            self.answer(404, encode({"error": {"message": f"Nothing is at {path}"}}))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(REST_PREFIX):
            self.rest(time.monotonic())
        elif path in CHAT_PATHS:
            self.answer(405, encode({"error": {"message": "Use POST"}}), {"Allow": "POST"})
        else:
            self.answer(404, encode({"error": {"message": f"Nothing is at {path}"}}))

    do_HEAD = do_GET
    do_PUT = do_PATCH = do_DELETE = do_POST

    # chat completions

    def chat(self, body: bytes, arrived: float) -> None:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ChatError(
                401, "No API key was given (Authorization: Bearer …)", "authentication_error"
            )
        request = read_chat(body)
        number = self.server.next_number()
        delay = self.server.delay_ai.draw()
        reply = reply_to(request)
        if request.get("stream"):
            self.stream(list(chunks(number, request, reply)), arrived, delay)
            return
        wait_until(arrived + delay)
        self.answer(200, encode(completion(number, request, reply)))

    def stream(self, parts: list[dict[str, Any]], arrived: float, delay: float) -> None:
        """Send server-sent events: the first after a third of the delay, the last at its end."""
        chunked = self.request_version != "HTTP/1.0"
        wait_until(arrived + delay / 3)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Rehearsal", "yes")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
        self.end_headers()
        events = [b"data: " + encode(part) + b"\n\n" for part in parts] + [b"data: [DONE]\n\n"]
        for i, event in enumerate(events):
            wait_until(arrived + delay / 3 + (delay * 2 / 3) * i / len(events))
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event) if chunked else event)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    # PostgREST

    def rest(self, arrived: float) -> None:
        path, _, text = self.path.partition("?")
        table = urllib.parse.unquote(path[len(REST_PREFIX) :])
        try:
            if not self.headers.get("apikey"):
                missing = "No `apikey` request header or url param was found."
                self.answer(
                    401, encode({"message": "No API key found in request", "hint": missing})
                )
                return
            if self.command not in ("GET", "HEAD"):
                raise postgrest.PostgrestError(
                    405,
                    "PGRST117",
                    f"Unsupported HTTP method: {self.command}; the rehearsal only reads",
                )
            if table != postgrest.TABLE:
                raise postgrest.PostgrestError(
                    404,
                    "PGRST205",
                    f"Could not find the table 'public.{table}' in the schema cache",
                    hint=f"Perhaps you meant the table 'public.{postgrest.TABLE}'",
                )
            delay = self.server.delay_db.draw()
            params = tuple(urllib.parse.parse_qsl(text, keep_blank_values=True))
            asked = tuple(
                (name, self.headers[name])
                for name in ("accept", "prefer", "range")
                if name in self.headers
            )
            status, span, body = self.server.database.answer(params, asked)
        except postgrest.PostgrestError as error:
            self.answer(error.status, encode(error.body))
            return
        wait_until(arrived + delay)
        self.answer(status, body, {"Content-Range": span})


# --- command line --------------------------------------------------------------------------------


def span(text: str) -> tuple[float, float]:
    """`2:4`, or `3` for always the same; seconds."""
    found = re.fullmatch(r"([0-9.]+)(?::([0-9.]+))?", text)
    try:
        low = float(found[1]) if found else -1.0
        high = float(found[2] or found[1]) if found else -1.0
    except ValueError:
        low = high = -1.0
    if not 0 <= low <= high <= 600:
        raise argparse.ArgumentTypeError(f"{text}: give MIN:MAX seconds, such as 2:4")
    return low, high


def port_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: a port is 0 to 65535")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="A stand-in for a chat-completions API and a PostgREST database, on loopback."
    )
    parser.add_argument("--port", type=port_number, default=0, help="0 (default): any free one")
    parser.add_argument("--catalogue", type=Path, default=catalogue.DEFAULT_PATH, metavar="FILE")
    parser.add_argument(
        "--delay-ai", type=span, default=(2.0, 4.0), metavar="MIN:MAX", help="seconds, 2:4"
    )
    parser.add_argument(
        "--delay-db", type=span, default=(0.1, 0.5), metavar="MIN:MAX", help="seconds, 0.1:0.5"
    )
    parser.add_argument("--seed", type=int, help="the same delays every time")
    options = parser.parse_args(arguments)
    if not catalogue.is_ready(options.catalogue):
        print(
            f"rehearsal: no catalogue at {options.catalogue}; build it: "
            f"{catalogue.HERE / 'catalogue.py'}",
            file=sys.stderr,
        )
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server = Server(
            ("127.0.0.1", options.port),
            Database(options.catalogue),
            Delay(options.delay_ai, options.seed),
            Delay(options.delay_db, options.seed),
        )
    except OSError as error:
        print(
            f"rehearsal: cannot listen on 127.0.0.1:{options.port}: {error.strerror}",
            file=sys.stderr,
        )
        return 1
    with contextlib.suppress(KeyboardInterrupt), server:
        print(f"rehearsal: http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
