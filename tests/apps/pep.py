"""The corners of PEP 3333: one view for each way an application may, or may not, answer."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]
closed: Counter[str] = Counter()
kept: dict[str, Any] = {}


class Body:
    """Content of any kind, whose close() is counted under the name of its view."""

    def __init__(self, name: str, items: Iterable[Any]) -> None:
        self.name = name
        self.items = iter(items)

    def __iter__(self) -> Iterator[Any]:
        return self.items

    def close(self) -> None:
        closed[self.name] += 1


# ---- when and how start_response is called ----


def generator(environ: Environ, start: Start) -> Iterable[bytes]:
    """start_response is called when the first item is made."""
    start("201 Late", TEXT + [("X-Late", "yes")])
    yield b""
    yield b"from "
    yield b"a generator"


def empties(environ: Environ, start: Start) -> Iterable[bytes]:
    yield b""
    yield b""
    start("200 OK", TEXT)
    yield b""
    yield b"a"
    yield b""
    yield b"b"
    yield b""


def never(environ: Environ, start: Start) -> Iterable[bytes]:
    return [b"without a status"]


def twice(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    start("201 Again", TEXT)
    return [b"never"]


def replaced(environ: Environ, start: Start) -> Iterable[bytes]:
    """An error after start_response, before any content: the head is replaced."""
    start("200 OK", TEXT + [("X-First", "1")])
    try:
        raise ValueError("first try")
    except ValueError:
        start("503 Replaced", TEXT + [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def too_late(environ: Environ, start: Start) -> Iterable[bytes]:
    """The same after content: the exception comes back, the connection is cut."""
    start("200 OK", TEXT)

    def items() -> Iterator[bytes]:
        yield b"half of it"
        try:
            raise ValueError("after the head")
        except ValueError:
            start("500 Too Late", TEXT, sys.exc_info())
        yield b"never"

    return Body("too_late", items())


def leak(environ: Environ, start: Start) -> Iterable[bytes]:
    """exc_info is not kept: the frame that held `big` goes away."""
    class Big:
        pass

    def inner() -> None:
        big = Big()
        kept["big"] = weakref.ref(big)
        try:
            raise ValueError("holds a frame")
        except ValueError:
            start("200 OK", TEXT, sys.exc_info())

    inner()
    return [b"leaked?"]


def leaked(environ: Environ, start: Start) -> Iterable[bytes]:
    gc.collect()
    start("200 OK", TEXT)
    return [b"yes" if kept["big"]() is not None else b"no"]


# ---- write() ----


def writes(environ: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT)
    write(b"one ")
    write(b"")
    write(b"two ")
    return [b"three"]


def writes_with_length(environ: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT + [("Content-Length", "6")])
    write(b"abc")
    write(b"def")
    return []


def write_text(environ: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT)
    write("a str")
    return []


def write_text_beyond(environ: Environ, start: Start) -> Iterable[bytes]:
    write = start("200 OK", TEXT + [("Content-Length", "0")])
    write("a str, but nothing of it fits")
    return []


# ---- content of the wrong kind, errors, close() ----


def text(environ: Environ, start: Start) -> Iterable[Any]:
    start("200 OK", TEXT)
    return Body("text", ["not bytes"])


def none(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return None


def number(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return 5


def raises(environ: Environ, start: Start) -> Iterable[bytes]:
    raise RuntimeError("before anything")


def raises_started(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    raise RuntimeError("after start_response")


def raises_first(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)

    def items() -> Iterator[bytes]:
        raise RuntimeError("in the first item")
        yield b""

    return Body("raises_first", items())


def raises_later(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)

    def items() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("in the second item")

    return Body("raises_later", items())


def raises_later_with_length(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT + [("Content-Length", "100")])

    def items() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("in the second item")

    return Body("raises_later_with_length", items())


def close_raises(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)

    class Bad(Body):
        def close(self) -> None:
            super().close()
            raise RuntimeError("in close()")

    return Bad("close_raises", [b"fine"])


def exits(environ: Environ, start: Start) -> Iterable[bytes]:
    sys.exit(7)


def interrupts(environ: Environ, start: Start) -> Iterable[bytes]:
    raise KeyboardInterrupt


def good(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return Body("good", [b"a", b"b"])


# ---- lengths ----


def short(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT + [("Content-Length", "10")])
    return Body("short", [b"12345"])


def long(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT + [("Content-Length", "5")])
    return Body("long", [b"123", b"456", b"789"])


def one(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [b"just one"]


def two(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return (b"one", b"two")


def nothing(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return []


def nothing_iterated(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return iter([])


def huge_item(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", TEXT)
    return [b"x" * 5_000_000]


# ---- fields ----


def fields(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the fields of the query string: a JSON list of pairs, percent-encoded."""
    from urllib.parse import unquote

    pairs = json.loads(unquote(environ["QUERY_STRING"]))
    start("200 OK", [tuple(p) for p in pairs])
    return [b"fields"]


def status_line(environ: Environ, start: Start) -> Iterable[bytes]:
    from urllib.parse import unquote

    start(json.loads(unquote(environ["QUERY_STRING"])), TEXT)
    return [b"status"]


def wrong_type(environ: Environ, start: Start) -> Iterable[bytes]:
    start(b"200 OK", TEXT)
    return [b"never"]


# ---- environ and input ----


def environ_view(environ: Environ, start: Start) -> Iterable[bytes]:
    seen = {k: v if isinstance(v, (str, bool, int, tuple)) else repr(type(v)) for k, v in environ.items()}
    seen["is dict"] = type(environ) is dict
    seen["fresh"] = "left over" not in environ
    environ["left over"] = True
    environ.pop("HTTP_HOST", None)
    data = json.dumps(seen).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def reading(environ: Environ, start: Start) -> Iterable[bytes]:
    """Every way to read: /reading?what"""
    stream, how = environ["wsgi.input"], environ["QUERY_STRING"]
    result: Any = None
    if how == "read":
        result = [stream.read(), stream.read(), stream.read(5), stream.readline()]
    elif how == "read-1":
        result = [stream.read(-1), stream.read()]
    elif how == "sizes":
        result = [stream.read(0), stream.read(1), stream.read(3), stream.read(10_000), stream.read(1)]
    elif how == "readline":
        result = [stream.readline() for _ in range(6)]
    elif how == "readline-n":
        result = [stream.readline(2), stream.readline(100), stream.readline(0), stream.readline(-1)]
    elif how == "readlines":
        result = [*stream.readlines(), stream.readlines()]
        result[-1] = b"".join(result[-1])
    elif how == "readlines-hint":
        result = [b"".join(stream.readlines(3)), stream.read()]
    elif how == "iterate":
        result = list(stream)
    elif how == "mixed":
        result = [stream.readline(), stream.read(2), next(iter(stream)), stream.read()]
    elif how == "twice":
        result = [environ["wsgi.input"].read(), environ["wsgi.input"].read()]
    data = json.dumps([r.decode() for r in result]).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def reserved(environ: Environ, start: Start) -> Iterable[bytes]:
    """Fields that belong to the server."""
    start("200 OK", TEXT + [
        ("Keep-Alive", "timeout=5"), ("Connection", "upgrade"), ("Upgrade", "x"), ("TE", "trailers"), ("Trailers", "x"),
        ("Transfer-Encoding", "chunked"), ("Proxy-Authenticate", "Basic"), ("Server", "me"),
        ("Date", "Fri, 31 Dec 1999 23:59:59 GMT")])
    return [b"reserved"]


def hints(environ: Environ, start: Start) -> Iterable[bytes]:
    """103 before the response; the second part of the path says which kind of response."""
    how = environ["PATH_INFO"].strip("/").split("/")[1]
    if how == "head":
        start("200 OK", TEXT)
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    if how == "twice":
        environ["wsgi.early_hints"]([("Link", "</b.css>; rel=preload")])
    if how == "read":
        body = environ["wsgi.input"].read()
    elif how == "fails":
        raise RuntimeError("after the hints")
    if how != "head":
        start("200 OK", TEXT)
    if how == "stream":
        return iter([b"one", b"two"])
    if how == "file":
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    return [body if how == "read" else b"hinted"]


def closes(environ: Environ, start: Start) -> Iterable[bytes]:
    data = json.dumps(closed).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def keep(environ: Environ, start: Start) -> Iterable[bytes]:
    """Objects of a request that outlive it."""
    kept["start"] = start
    kept["write"] = start("200 OK", TEXT)
    kept["input"] = environ["wsgi.input"]
    kept["gone"] = environ["waitress.client_disconnected"]
    return [b"kept"]


def use_kept(environ: Environ, start: Start) -> Iterable[bytes]:
    seen = []
    for use in (lambda: kept["write"](b"late"), lambda: kept["start"]("200 OK", TEXT), lambda: kept["input"].read(),
                lambda: kept["gone"]()):
        try:
            seen.append(str(use()))
        except Exception as error:
            seen.append(type(error).__name__)
    start("200 OK", TEXT)
    return [" ".join(seen).encode()]


VIEWS = {name: value for name, value in globals().items() if callable(value) and getattr(value, "__module__", "") == __name__}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/").split("/")[0].replace("-", "_")
    return VIEWS[name if name in VIEWS else "environ_view"](environ, start)
