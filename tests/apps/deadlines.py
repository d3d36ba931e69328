"""An application that takes too long in every way; the first part of the path names the way."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import weir

events: Counter[str] = Counter()
lock = threading.Lock()
# Of the C library: sleep() lets others run, hold() does not give the interpreter lock up.
sleep_in_c = ctypes.CDLL(None).usleep
hold_in_c = ctypes.PyDLL(None).usleep


def note(event: str) -> None:
    with lock:
        events[event] += 1


def nap_in_steps(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)  # the line that the log names


def loop(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/loop/MS: sleeps in Python, in short steps."""
    note("looping")
    try:
        nap_in_steps(int(arg) / 1000)
    except Exception:
        note("swallowed")
        raise
    except weir.DeadlineExceeded:
        note("interrupted")
        raise
    note("through")
    return answer(start, "through")


def stubborn(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/stubborn/MS: swallows what interrupts it, and sleeps again."""
    for _ in range(2):
        try:
            nap_in_steps(int(arg) / 1000)
        except BaseException as error:
            note(f"swallowed {type(error).__name__}")
    note("through")
    return answer(start, "through")


def block(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/block/MS: one call in C, without the interpreter lock."""
    note("blocked")
    try:
        sleep_in_c(int(arg) * 1000)
    except BaseException as error:
        note(type(error).__name__)
        raise
    finally:
        note("unblocked")
    return answer(start, "unblocked")


def hold(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/hold/MS: one call in C that keeps the interpreter lock."""
    time.sleep(0.1)
    hold_in_c(int(arg) * 1000)
    return answer(start, "held")


def told(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/told/MS: until the server says that nobody waits any more."""
    gone = environ["weir.client_disconnected"]
    until = time.monotonic() + int(arg) / 1000
    while time.monotonic() < until and not gone():
        time.sleep(0.002)
    note("told" if gone() and environ["waitress.client_disconnected"]() else "not told")
    return answer(start, "told")


class Stream:
    """/stream/MS: an answer that begins at once and then takes its time; so does its close()."""

    def __init__(self, ms: int, close_ms: int) -> None:
        self.ms, self.close_ms = ms, close_ms

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield b"begun\n"
            nap_in_steps(self.ms / 1000)
            yield b"done\n"
        except weir.DeadlineExceeded:
            note("stream interrupted")
            raise
        except GeneratorExit:
            note("stream left")
            raise

    def close(self) -> None:
        note("close")
        try:
            nap_in_steps(self.close_ms / 1000)
        except weir.DeadlineExceeded:
            note("close interrupted")
            raise
        note("closed")


def stream(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return Stream(int(arg), 0)


def slow_close(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return Stream(0, int(arg))


def body(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    note("body entered")
    return answer(start, str(len(environ["wsgi.input"].read())))


class Slow:
    """Its end takes Python code, after the answer: not a moment at which an interrupt may come."""

    def __del__(self) -> None:
        try:
            nap_in_steps(0.003)
            note("deleted")
        except BaseException as error:
            note(f"deleting: {type(error).__name__}")
            raise


def token(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    """/token/MS?T: T, after so long in Python code. Whoever catches an interrupt of another request notes it."""
    try:
        if arg and int(arg):
            environ["test.slow"] = Slow()
            nap_in_steps(int(arg) / 1000)
        else:
            sum(range(2000))
    except weir.DeadlineExceeded:
        note("interrupted" if int(arg) else "WRONG")
        raise
    return answer(start, environ["QUERY_STRING"])


def seen(environ: dict, start: Callable, arg: str) -> Iterable[bytes]:
    with lock:
        return answer(start, json.dumps(dict(events, pid=os.getpid())))


def answer(start: Callable, text: str) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]


VIEWS = {f.__name__: f for f in (loop, stubborn, block, hold, told, stream, slow_close, body, token, seen)}


def app(environ: dict[str, Any], start: Callable) -> Iterable[bytes]:
    _, name, *arg = environ["PATH_INFO"].split("/")
    return VIEWS[name](environ, start, arg[0] if arg else "")
