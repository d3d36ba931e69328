"""wsgi.file_wrapper in all its shapes. FILES names the folder with what is served."""

from __future__ import annotations

import io
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

FOLDER = os.environ["FILES"]
closed: Counter[str] = Counter()


class Plain:
    """A file without fileno, tell, seek or close."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


class Noted:
    """A file-like object whose close() is counted."""

    def __init__(self, file: Any, name: str) -> None:
        self.file = file
        self.name = name

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def close(self) -> None:
        closed[self.name] += 1
        self.file.close()


class Middleware:
    """Wraps the wrapper: it must be iterated, not sent as a file."""

    def __init__(self, items: Iterable[bytes]) -> None:
        self.items = items

    def __iter__(self) -> Any:
        return (item.upper() for item in self.items)

    def close(self) -> None:
        self.items.close()  # type: ignore[attr-defined]


def app(environ: dict, start: Callable) -> Iterable[bytes]:
    kind = environ["PATH_INFO"].strip("/")
    query = {k: v[0] for k, v in parse_qs(environ["QUERY_STRING"]).items()}
    path = os.path.join(FOLDER, query.get("name", "data"))
    headers = [("Content-Type", "application/octet-stream")]
    if "length" in query:
        headers.append(("Content-Length", query["length"]))
    wrapper = environ["wsgi.file_wrapper"]
    if kind == "closed":
        start("200 OK", headers)
        return [str(closed[query["key"]]).encode()]
    if kind == "file":
        file = open(path, "rb")
        if "offset" in query:
            file.seek(int(query["offset"]))
        if "ahead" in query:
            file.read(int(query["ahead"]))  # fills the buffer beyond what was read
    elif kind == "raw":
        file = open(path, "rb", buffering=0)
        file.seek(int(query.get("offset", "0")))
    elif kind == "temporary":
        file = tempfile.TemporaryFile()
        file.write(b"temporary " * 5000)
        file.seek(10)
    elif kind == "bytes":
        file = io.BytesIO(open(path, "rb").read())
        file.seek(int(query.get("offset", "0")))
    elif kind == "plain":
        file = Plain(open(path, "rb").read())
    elif kind == "noted":
        file = Noted(open(path, "rb"), query["key"])
    elif kind == "pipe":
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "wb") as w:
                for i in range(1000):
                    w.write(b"line %d\n" % i)
            os._exit(0)
        os.close(writer)
        file = os.fdopen(reader, "rb")
    elif kind == "text":
        file = open(path, "rb")
        start("200 OK", headers)
        return Middleware(wrapper(file, 1000))
    else:
        start("404 Not Found", headers)
        return [b"unknown"]
    if query.get("status"):
        start(query["status"] + " Chosen", headers)
    else:
        start("200 OK", headers)
    return wrapper(file, int(query["block"])) if "block" in query else wrapper(file)
