"""Views that do not come back by themselves: what test_stacks.py looks at."""

from __future__ import annotations

import contextlib
import ctypes
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

free = threading.Event()  # /free sets it: whatever can end, ends
never = threading.Lock()
never.acquire()
hold_in_c = ctypes.PyDLL(None).usleep  # keeps the interpreter lock
listener = socket.create_server(("127.0.0.1", 0))


def spin() -> None:
    n = 0
    while not free.is_set():
        n += 1  # the line of spin


def hold() -> None:
    """In C, with the lock."""
    hold_in_c(4000000)


def match() -> None:
    re.match(r"(\w+\s?)+$", "the names of all who came to the meeting of the board yesterday!")


def receive() -> None:
    with socket.create_connection(listener.getsockname()) as s:
        s.settimeout(0.5)
        while not free.is_set():
            with contextlib.suppress(TimeoutError):
                s.recv(1)


def lock() -> None:
    while not free.is_set() and not never.acquire(timeout=0.2):
        pass


def sleep() -> None:
    while not free.is_set():
        time.sleep(0.2)


def generate() -> None:
    def steps() -> Iterator[int]:
        yield 1
        free.wait()

    for _ in steps():
        pass


def deep() -> None:
    def down(n: int) -> None:
        if n:
            down(n - 1)
        else:
            free.wait()

    down(150)


def größe() -> None:
    free.wait()


def made() -> None:
    exec("def nowhere():\n    free.wait()\nnowhere()", {"free": free})


VIEWS = {f.__name__: f for f in (spin, hold, match, receive, lock, sleep, generate, deep, made)} | {"groesse": größe}


def app(environ: dict[str, Any], start: Callable) -> Iterable[bytes]:
    name = environ["PATH_INFO"].strip("/")
    if name == "free":
        free.set()
    elif name:
        VIEWS[name]()
    start("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]
