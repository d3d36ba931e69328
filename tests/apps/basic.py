"""The application of most end-to-end tests: one small view for each thing to look at.

The first part of the path names the view; what follows is its argument.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]

# What happened, for /seen: how often each view was entered, left, closed.
events: Counter[str] = Counter()
texts: dict[str, str] = {}
gates: dict[str, threading.Event] = {}
inside = peak = 0
lock = threading.Lock()


def note(event: str, n: int = 1) -> None:
    with lock:
        events[event] += n


def gate(name: str) -> threading.Event:
    with lock:
        return gates.setdefault(name, threading.Event())


def answer(start: Start, body: bytes | str, *fields: tuple[str, str], status: str = "200 OK",
           kind: str = "text/plain; charset=utf-8") -> list[bytes]:
    data = body.encode() if isinstance(body, str) else body
    start(status, [("Content-Type", kind), ("Content-Length", str(len(data))), *fields])
    return [data]


def answer_json(start: Start, value: Any) -> list[bytes]:
    return answer(start, json.dumps(value), kind="application/json")


# ---- views: (environ, start_response, argument) -> iterable ----


def hello(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    return answer(start, "Hello world\n")


def token(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """The query string, so that each answer names its request."""
    return answer(start, environ["QUERY_STRING"])


def env(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """The environ, where it is text, and the type names of the rest."""
    shown = {k: v if isinstance(v, (str, bool, int, list, tuple)) else f"<{type(v).__name__}>"
             for k, v in environ.items()}
    shown["type(environ)"] = type(environ).__name__
    return answer_json(start, shown)


def echo(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """The body as it came; what is known of it stands in fields."""
    body = environ["wsgi.input"].read()
    return answer(start, body, ("X-Length", environ.get("CONTENT_LENGTH", "none")),
                  ("X-Coding", environ.get("HTTP_TRANSFER_ENCODING", "none")),
                  kind="application/octet-stream")


def size(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """How many bytes the body has, and their checksum; read in pieces of `arg`."""
    import zlib

    piece, total, crc = int(arg or 65536), 0, 0
    while data := environ["wsgi.input"].read(piece):
        total += len(data)
        crc = zlib.crc32(data, crc)
    return answer_json(start, {"size": total, "crc": crc})


def ignore(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """Answers without a look at the body."""
    return answer(start, "not read\n")


def status(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/status/204: that status with a body nevertheless."""
    start(f"{arg} Chosen", [("Content-Type", "text/plain")])
    return [b"some ", b"content"]


def sleep(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/sleep/MS: blocks, and counts how many do at once."""
    global inside, peak
    with lock:
        inside += 1
        peak = max(peak, inside)
        events["sleep"] += 1
    try:
        time.sleep(int(arg) / 1000)
    finally:
        with lock:
            inside -= 1
            events["slept"] += 1
    return answer(start, environ["QUERY_STRING"] or "slept\n")


def wait(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/wait/NAME: blocks until /open/NAME."""
    note(f"wait {arg}")
    opened = gate(arg).wait(60)
    note(f"waited {arg}")
    return answer(start, environ["QUERY_STRING"] or ("opened\n" if opened else "given up\n"))


def open_gate(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    gate(arg).set()
    return answer(start, "open\n")


def watch(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/watch/NAME: until its client left; notes after how many ms that was seen."""
    gone = environ["waitress.client_disconnected"]
    note(f"watch {arg}")
    until = time.monotonic() + 20
    while time.monotonic() < until and not gone() and not gate(arg).is_set():
        time.sleep(0.005)
    note(f"watched {arg} {'gone' if gone() else 'there'}")
    return answer(start, "gone\n" if gone() else "there\n")


def burn(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/burn/MS: computes."""
    until = time.monotonic() + int(arg) / 1000
    n = 0
    while time.monotonic() < until:
        n += 1
    return answer(start, "burnt\n")


class Closing:
    """An iterable whose close() is noted as `closed NAME`."""

    def __init__(self, items: Iterable[bytes], name: str) -> None:
        self.items = iter(items)
        self.name = name

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = next(self.items)
        note(f"made {self.name}")
        return item

    def close(self) -> None:
        note(f"closed {self.name}")
        if self.name == "ticks":
            sys.stderr.write("ticks closed\n")


def stream(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/stream/N: N pieces, each of its own."""
    start("200 OK", [("Content-Type", "text/plain")])
    return Closing((f"piece {i}\n".encode() for i in range(int(arg))), f"stream {environ['QUERY_STRING']}")


def writes(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/writes/N: N pieces by write(), 100 ms apart; tells its log how that ended."""
    write = start("200 OK", [("Content-Type", "text/plain")])
    try:
        for i in range(int(arg)):
            write(f"piece {i}\n".encode())
            time.sleep(0.1)
    except OSError as error:
        environ["wsgi.errors"].write(f"write() raised {type(error).__name__}: {error}\n")
        raise
    return []


def ticks(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/ticks/N: N pieces, 100 ms apart."""
    def items() -> Iterator[bytes]:
        for i in range(int(arg)):
            yield f"tick {i}\n".encode()
            time.sleep(0.1)

    note("ticks")
    start("200 OK", [("Content-Type", "text/plain")])
    return Closing(items(), "ticks")


def gated(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/gated/NAME: server-sent events; event N is made when /open/NAME-N was asked for."""
    def items() -> Iterator[bytes]:
        for i in range(100):
            yield f"data: {i}\n\n".encode()
            while not gate(f"{arg}-{i}").wait(0.02):
                if environ["waitress.client_disconnected"]():
                    note(f"left {arg}")
                    return
            if gate(f"{arg}-end").is_set():
                return

    start("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    return Closing(items(), f"gated {arg}")


def flood(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/flood/MIB?NAME: so much in pieces of 64 KiB, each noted when it is made."""
    piece = bytes(65536)
    start("200 OK", [("Content-Type", "application/octet-stream")])
    return Closing((piece for _ in range(int(arg) * 16)), f"flood {environ['QUERY_STRING']}")


def big(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/big/N: N bytes in one piece."""
    return answer(start, bytes(int(arg)), kind="application/octet-stream")


def live(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/live/NAME: tells what it reads from the body as soon as it is there."""
    stream = environ["wsgi.input"]
    note(f"live {arg}")

    def items() -> Iterator[bytes]:
        try:
            while data := stream.readline():
                note(f"read {arg}")
                yield b"got " + data
        except Exception as error:
            note(f"error {arg} {type(error).__name__}")
            with lock:
                texts[arg] = str(error)
            raise
        yield b"end\n"

    start("200 OK", [("Content-Type", "text/plain")])
    return items()


def reads(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/reads/NAME: reads all; an error of the body is told in the answer."""
    note(f"reads {arg}")
    try:
        body = environ["wsgi.input"].read()
    except Exception as error:
        return answer(start, f"{type(error).__name__}: {error}", status="422 Told")
    return answer(start, f"{len(body)} bytes")


def fail(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    raise RuntimeError("failed on purpose, " + environ["QUERY_STRING"])


def errors(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    environ["wsgi.errors"].write("a line for wsgi.errors: " + environ["QUERY_STRING"] + "\n")
    environ["wsgi.errors"].flush()
    return answer(start, "written\n")


def background(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/background/MS: answers at once, a thread of the application goes on."""
    def work() -> None:
        time.sleep(int(arg) / 1000)
        note("background done")

    threading.Thread(target=work, daemon=True).start()
    return answer(start, "started\n")


def imports(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """Imports inside a view, from many threads at once."""
    import importlib

    module = importlib.import_module(arg)
    return answer(start, module.__name__)


def die(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    sys.exit(3)


def thread(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    return answer(start, f"{threading.get_ident()} {threading.active_count()} {os.getpid()}")


def seen(environ: Environ, start: Start, arg: str) -> Iterable[bytes]:
    """/seen: all that was noted. /seen/reset forgets it."""
    global peak
    with lock:
        shown = dict(events, peak=peak, inside=inside, texts=dict(texts))
        if arg == "reset":
            events.clear()
            texts.clear()
            peak = inside
    return answer_json(start, shown)


VIEWS = {
    "": hello, "health": hello, "hello": hello, "token": token, "env": env, "echo": echo, "size": size,
    "ignore": ignore, "status": status, "sleep": sleep, "wait": wait, "open": open_gate, "watch": watch,
    "burn": burn, "stream": stream, "ticks": ticks, "writes": writes, "gated": gated, "flood": flood, "big": big, "live": live,
    "reads": reads, "fail": fail, "errors": errors, "background": background, "imports": imports,
    "die": die, "thread": thread, "seen": seen,
}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    _, _, path = environ["PATH_INFO"].partition("/")
    name, _, arg = path.partition("/")
    view = VIEWS.get(name)
    if view is None:
        return answer(start, f"no view for {environ['PATH_INFO']!a}\n", status="404 Not Found")
    return view(environ, start, arg)


def make_app() -> Callable[[Environ, Start], Iterable[bytes]]:
    """For --factory and --call."""
    return app
