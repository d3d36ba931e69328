"""An application that takes as long as a test says, and writes down when each request came in and went out.

The folder QUEUED holds `ledger` (one line for each event, of all processes: EVENT ID PID MONOTONIC_NS) and the
files that are waited for. The query says what to do:

id=X        its name in the ledger; without one nothing is written
ms=N        take so long
hold=NAME   go on when the file QUEUED/NAME exists
stream=NAME answer `first` at once, the rest when the file exists
close=NAME  close() returns when the file exists
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["QUEUED"])
LEDGER = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def note(event: str, query: dict[str, str]) -> None:
    if "id" in query:
        os.write(LEDGER, f"{event} {query['id']} {os.getpid()} {time.monotonic_ns()}\n".encode())


def wait_for(name: str | None) -> None:
    while name and not (FOLDER / name).exists():
        time.sleep(0.004)


class Stream:
    def __init__(self, query: dict[str, str]) -> None:
        self.query = query

    def __iter__(self) -> Iterator[bytes]:
        yield b"first"
        wait_for(self.query["stream"])
        yield b"last"

    def close(self) -> None:
        wait_for(self.query.get("close"))
        note("end", self.query)


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    query = dict(part.split("=", 1) for part in environ["QUERY_STRING"].split("&") if "=" in part)
    note("start", query)
    if "stream" in query:
        start("200 OK", [("Content-Type", "text/plain")])
        return Stream(query)
    if "ms" in query:
        time.sleep(int(query["ms"]) / 1000)
    wait_for(query.get("hold"))
    length = crc = 0
    while data := environ["wsgi.input"].read(65536):
        length += len(data)
        crc = zlib.crc32(data, crc)
    body = f"{query.get('id', '-')} {os.getpid()} {length} {crc:08x}".encode()
    note("end", query)
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
