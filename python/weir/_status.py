"""`weir status` and `weir stacks`: what a running server does, told by its admin listener.

On a terminal `weir status` is drawn anew with each event of the listener; a thread reads them, and the
main thread waits for it, for keys and for a new size of the window. Elsewhere it is printed once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import shutil
import signal
import sys
import threading
import time
from urllib.parse import urlencode

from weir import _status_text as text
from weir._status_ask import Admin, AskError, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from weir._status_text import Line

SORTS = ("age", "user", "route", "state")
FLIGHTS_MAX = 1000
# Without a terminal, and for the first answer.
FLIGHTS = 20
FAILED, USAGE, INTERRUPTED = 1, 2, 130

ABOUT = {
    "status": "Show what a running server does: workers, routes, queues, requests in flight.\n"
              "On a terminal it is drawn anew each second: q ends, s changes the order, + and - the rows.",
    "stacks": "Show where each thread of a running server is, with the request that it serves.",
}
FINDING = """
The admin listener is that of --admin, else of the settings that the server was started with
(WEIR_ADMIN, weir.yaml of the current folder or --config); its token is in --admin-token-file,
WEIR_ADMIN_TOKEN or those settings. Exit code 0; 1: it could not be asked; 2: wrong usage.
"""


class UsageError(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parser(word: str) -> Parser:
    p = Parser(prog="weir " + word, description=ABOUT[word], epilog=FINDING, allow_abbrev=False, add_help=False,
               formatter_class=argparse.RawDescriptionHelpFormatter, usage="weir %s [options]" % word)
    add = p.add_argument
    add("-h", "--help", action="store_true", help="this text")
    add("--admin", metavar="ADDRESS", default="", help="HOST:PORT, unix:PATH or a URL")
    add("--admin-token-file", metavar="FILE", default="", help="file with the token")
    add("-c", "--config", metavar="FILE", default="", help="the settings of the server")
    add("--worker", metavar="SLOT", type=whole(4095), help="only this worker")
    add("--json", action="store_true", help="what the listener answered, for programs")
    if word == "status":
        add("--once", action="store_true", help="once, as plain text")
        add("--sort", choices=SORTS, default="age", help="order of the requests: age, user, route, state")
        add("--rows", metavar="N", type=whole(FLIGHTS_MAX), help="most requests that are shown")
    return p


def whole(most: int) -> Any:
    def number(value: str) -> int:
        if not value.isascii() or not value.isdigit() or int(value) > most:
            raise argparse.ArgumentTypeError("'%s' is not a number from 0 to %d" % (value, most))
        return int(value)

    return number


def main(core: Any, word: str, arguments: list[str]) -> int:
    try:
        options, rest = parser(word).parse_known_args(arguments)
        if options.help:
            parser(word).print_help()
            return 0
        admin = find(core, options, rest, dict(os.environ))
        if word == "stacks":
            return stacks(admin, options)
        if not options.json and not options.once and is_terminal():
            return Live(admin, options).run()
        return once(admin, options)
    except UsageError as error:
        return complain(str(error) + "; weir %s --help tells the options" % word, USAGE)
    except AskError as error:
        return complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # | head
        return FAILED
    except OSError as error:
        return complain("cannot write to standard output: %s" % error.strerror, FAILED)


def complain(message: str, status: int) -> int:
    sys.stderr.write("weir: %s\n" % message)
    return status


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def write(lines: list[str]) -> None:
    sys.stdout.flush()
    put("\n".join(lines) + "\n", "...")


def put(out: str, dots: str) -> None:
    """To standard output, all of it: without a buffer of its own Python loses what a pipe does not take at once."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        data = out.encode(encoding)
    except UnicodeError:
        data = out.replace("…", dots).encode(encoding, "replace")
    left = memoryview(data)
    while left:
        left = left[os.write(1, left):]


# ---- once ----


def query(options: Any, flights: int, sort: str, brief: bool = True) -> str:
    parts = {"flights": flights, "sort": sort}
    if options.worker is not None:
        parts["worker"] = options.worker
    if brief:
        parts["brief"] = "yes"
    return urlencode(parts)


def once(admin: Admin, options: Any) -> int:
    flights = FLIGHTS if options.rows is None else options.rows
    if options.json:
        return print_json(admin.get("/status.json?" + query(options, options.rows if options.rows is not None
                                                             else FLIGHTS_MAX, options.sort, False)))
    status = admin.json("/status.json?" + query(options, flights, options.sort))
    screen = text.Screen(width=width(), sort=options.sort, address=admin.address.text, flights=flights)
    write([line.text for line in text.status_lines(only(status, options), newest(admin), screen)])
    return 0


def only(status: dict[str, Any], options: Any) -> dict[str, Any]:
    if options.worker is not None:
        workers = [w for w in text.rows(status, "workers") if w.get("slot") == options.worker]
        return {**status, "workers": workers}
    return status


def newest(admin: Admin) -> dict[str, Any]:
    """The newest point of the history: of the last second where somebody looks, else of the last step."""
    history = admin.json("/history.json")
    columns = history.get("columns")
    points = [history[name][-1] for name in ("seconds", "steps")
              if isinstance(history.get(name), list) and history[name] and isinstance(history[name][-1], list)]
    if not points or not isinstance(columns, list):
        return {}
    return dict(zip(columns, max(points, key=lambda point: point[0] if point else 0), strict=False))


def width() -> int:
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def print_json(body: bytes) -> int:
    try:
        json.loads(body)
    except ValueError:
        raise AskError("what answers there is no admin listener of weir") from None
    write([body.decode("utf-8", "replace").rstrip("\n")])
    return 0


def stacks(admin: Admin, options: Any) -> int:
    target = "/stacks.json" + ("?worker=%d" % options.worker if options.worker is not None else "")
    if options.json:
        return print_json(admin.get(target))
    found = admin.json(target)
    if options.worker is not None and not text.rows(found, "workers"):
        raise AskError("there is no worker %d; weir status lists them" % options.worker)
    # A file or another program gets whole lines.
    write(text.stacks_lines(found, width() if sys.stdout.isatty() else None))
    return 0


# ---- live ----

STYLES = {"title": "\x1b[1m", "head": "\x1b[7m", "bad": "\x1b[31m", "faint": "\x1b[2m"}
PLAIN_STYLES = {"title": "\x1b[1m", "head": "\x1b[7m"}  # NO_COLOR is about colours
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
AGAIN_SECONDS = 1.0
# Arrows and other keys without a meaning here.
ESCAPES = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]?|O.?|.?)")


class Feed(threading.Thread):
    """Reads events until it is closed or the connection ends; what came last is kept, and a byte tells."""

    def __init__(self, admin: Admin, target: str, wake: int) -> None:
        super().__init__(daemon=True)
        self.admin, self.target, self.wake = admin, target, wake
        self.lock = threading.Lock()
        self.came: dict[str, dict[str, Any]] = {}
        self.error = ""
        self.closed = self.ended = False
        self.sock: socket.socket | None = None

    def run(self) -> None:
        try:
            for name, value in self.admin.events(self.target, self.opened):
                with self.lock:
                    self.came[name] = value
                self.tell()
            self.error = "%s: the server has ended the connection" % self.admin.address.text
        except AskError as error:
            self.error = str(error)
        self.ended = True
        self.tell()

    def opened(self, sock: socket.socket) -> None:
        with self.lock:
            self.sock = sock
        if self.closed:
            self.close()

    def tell(self) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                os.write(self.wake, b".")

    def take(self) -> dict[str, dict[str, Any]]:
        with self.lock:
            came, self.came = self.came, {}
        return came

    def close(self) -> None:
        import socket

        self.closed = True
        with self.lock, contextlib.suppress(OSError):
            if self.sock:
                self.sock.shutdown(socket.SHUT_RDWR)


class Live:
    def __init__(self, admin: Admin, options: Any) -> None:
        self.admin, self.options = admin, options
        self.sort = options.sort
        self.rows: int | None = options.rows
        self.status: dict[str, Any] | None = None
        self.point: dict[str, Any] = {}
        self.shown = 0  # requests on the screen
        self.error = ""
        self.again_at: float | None = None
        self.feed: Feed | None = None
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_write, False)
        os.set_blocking(self.wake_read, False)
        self.styles = PLAIN_STYLES if os.environ.get("NO_COLOR") else STYLES
        self.saved: Any = None

    def run(self) -> int:
        # What is wrong from the start is said in one line, without a screen.
        self.status = self.admin.json("/status.json?" + query(self.options, self.wanted(), self.sort))
        with contextlib.suppress(AskError):
            self.point = newest(self.admin)
        with self.screen():
            try:
                self.connect()
                self.draw()
                while self.turn():
                    self.draw()
            finally:
                if self.feed:
                    self.feed.close()
        return 0

    def wanted(self) -> int:
        """How many requests are asked for: a screen of them, or what + asks for."""
        height = shutil.get_terminal_size((80, 24)).lines
        return min(max(height, self.rows or 0, 1), FLIGHTS_MAX)

    def connect(self) -> None:
        if self.feed:
            self.feed.close()
        self.again_at = None
        self.feed = Feed(self.admin, "/events?" + query(self.options, self.wanted(), self.sort), self.wake_write)
        self.feed.start()

    def turn(self) -> bool:
        """Wait for something; False: the end is asked for."""
        pause = None if self.again_at is None else max(self.again_at - time.monotonic(), 0)
        ready, _, _ = select.select([0, self.wake_read], [], [], pause)
        if self.wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wake_read, 4096)
        if self.again_at is not None and time.monotonic() >= self.again_at:
            self.connect()
        self.look()
        return 0 not in ready or self.keys(os.read(0, 64))

    def look(self) -> None:
        """What the feed has brought."""
        if not self.feed:
            return
        came = self.feed.take()
        if "status" in came:
            self.status = came["status"]
        self.point = came.get("point", self.point)
        if came:
            self.error = ""
        if self.feed.ended and self.again_at is None:
            self.error = self.feed.error
            self.again_at = time.monotonic() + AGAIN_SECONDS

    def keys(self, typed: bytes) -> bool:
        if not typed:  # the terminal has gone
            return False
        for key in ESCAPES.sub("", typed.decode("ascii", "replace")):
            if key in "qQ\x03\x04":
                return False
            if key in "sS":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
                self.connect()
            elif key in "+=":
                self.rows = min((self.shown if self.rows is None else self.rows) + 1, FLIGHTS_MAX)
            elif key in "-_":
                self.rows = max((self.shown if self.rows is None else self.rows) - 1, 0)
        return True

    def draw(self) -> None:
        size = shutil.get_terminal_size((80, 24))
        note = self.error + "; trying again" if self.error else "q quit  s sort: %s  +/- rows" % self.sort
        screen = text.Screen(max(size.columns, 20), max(size.lines, 5), self.rows, self.sort,
                             self.admin.address.text, note, bool(self.error))
        status = only(self.status or {}, self.options)
        lines = text.status_lines(status, self.point, screen)
        self.shown = screen.shown
        out = "\x1b[H" + "\n".join(self.painted(line, screen.width) for line in lines) + "\x1b[J"
        put(out, "~")

    def painted(self, line: Line, width: int) -> str:
        # Erased before it is written: behind a line that fills the screen its last character would go.
        style = self.styles.get(line.style)
        content = text.cell(line.text, width) if line.style == "head" else line.text
        return "\x1b[K%s%s\x1b[0m" % (style, content) if style else "\x1b[K" + content

    # -- the terminal --

    @contextlib.contextmanager
    def screen(self) -> Iterator[None]:
        """The alternate screen, keys one by one; given back whatever happens."""
        handlers = {
            signal.SIGWINCH: lambda *_: self.resized(),
            signal.SIGTERM: lambda *_: sys.exit(128 + signal.SIGTERM),
            signal.SIGHUP: lambda *_: sys.exit(128 + signal.SIGHUP),
            signal.SIGTSTP: lambda *_: self.stop(),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self.enter()
            yield
        finally:
            self.leave()
            for number, handler in before.items():
                signal.signal(number, handler)

    def enter(self) -> None:
        import termios
        import tty

        self.saved = termios.tcgetattr(0)
        tty.setcbreak(0)
        os.write(1, ENTER.encode())

    def leave(self) -> None:
        import termios

        with contextlib.suppress(OSError, termios.error):
            os.write(1, LEAVE.encode())
            if self.saved:
                termios.tcsetattr(0, termios.TCSADRAIN, self.saved)

    def resized(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self.wake_write, b".")

    def stop(self) -> None:
        """Ctrl-Z: the shell gets its screen; and back again."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()
        self.resized()
