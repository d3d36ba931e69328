"""The objects of the admin listener as text (docs/reference/status-json.md, stacks-json.md).

    status_lines(status, point, screen)   for `weir status`: a list of lines
    stacks_lines(stacks, width)           for `weir stacks`

Pure: no terminal, no clock. What a member lacks is shown as "-", so that an older or newer server can be
looked at. Texts come from clients and applications: nothing in them can steer a terminal.
"""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# ---- texts and columns ----


def clean(text: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def clip(text: str, width: int) -> str:
    """At most so many columns; what is cut is marked."""
    text = text[: 8 * width + 8] if width > 0 else text  # no need to look at a megabyte
    if columns(text) <= width:
        return text
    out, used = [], 0
    for c in text:
        k = columns(c)
        if used + k > width - 1:
            break
        out.append(c)
        used += k
    return "".join(out) + "…" if width > 0 else ""


def cell(text: str, width: int) -> str:
    """Exactly so many columns: on the left, or with a negative width on the right."""
    text = clip(text, abs(width))
    blank = " " * (abs(width) - columns(text))
    return blank + text if width < 0 else text + blank


def seconds(value: Any, none: str = "-") -> str:
    """Short, at most 6 columns: 350us, 12ms, 4.1s, 75s, 12m, 3h."""
    if not isinstance(value, (int, float)):
        return none
    if value < 0.0005:
        return "%.0fus" % (max(value, 0) * 1e6)
    if value < 0.9995:
        return "%.0fms" % (value * 1e3)
    if value < 9.95:
        return "%.1fs" % value
    if value < 600:
        return "%.0fs" % value
    if value < 36000:
        return "%.0fm" % (value / 60)
    return "%.0fh" % (value / 3600)


def uptime(value: float) -> str:
    minutes, hours = int(value) // 60 % 60, int(value) // 3600 % 24
    days = int(value) // 86400
    if days:
        return "%dd %dh" % (days, hours)
    return "%dh %dm" % (hours, minutes) if hours else "%dm %ds" % (minutes, int(value) % 60)


def size(value: Any) -> str:
    if not isinstance(value, (int, float)) or value <= 0:
        return "-"
    for unit in ("B", "K", "M", "G"):
        if value < 1024 or unit == "G":
            return "%.0f%s" % (value, unit) if value >= 10 or unit == "B" else "%.1f%s" % (value, unit)
        value /= 1024
    return "-"


def count(value: Any) -> str:
    """At most 6 columns."""
    if not isinstance(value, (int, float)):
        return "-"
    if value >= 9_999_500:
        return "%.0fM" % (value / 1e6)
    return "%.0fk" % (value / 1e3) if value >= 99_999.5 else "%.0f" % value


def rate(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return "%.1f" % value if 0 < value < 99.95 else "%.0f" % value


def number(of: Any, *path: str) -> float:
    """A number deep inside; 0 where there is none."""
    for name in path:
        of = of.get(name) if isinstance(of, dict) else None
    return of if isinstance(of, (int, float)) and not isinstance(of, bool) else 0


def total(of: Any) -> float:
    """The sum of the numbers of an object's members."""
    return sum(number(of, name) for name in of) if isinstance(of, dict) else 0


def rows(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = of.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


# ---- weir status ----


@dataclass
class Line:
    text: str
    style: str = ""  # "title", "head" (of a table), "bad", "faint" or ""


@dataclass
class Screen:
    width: int = 80
    height: int | None = None  # None: as long as it gets
    flights: int | None = None  # most that are shown; None: as many as fit, or 20
    sort: str = "age"
    address: str = ""
    note: str = ""  # the last line: keys, or what is wrong
    bad: bool = False  # the note is about something wrong
    shown: int = 0  # requests that status_lines has put on it


@dataclass
class Table:
    """Columns with widths; one of them (width 0) takes what is left."""

    head: list[tuple[str, int]]
    lines: list[Line] = field(default_factory=list)

    def add(self, screen: Screen, cells: list[str], style: str = "") -> None:
        self.lines.append(Line(self.row(screen, cells), style))

    def row(self, screen: Screen, cells: list[str]) -> str:
        used = sum(abs(w) for _, w in self.head) + len(self.head) - 1
        rest = max(screen.width - used, 8)
        return " ".join(cell(c, w or rest) for c, (_, w) in zip(cells, self.head, strict=False))

    def shown(self, screen: Screen, most: int | None) -> list[Line]:
        if not self.lines:
            return []
        head = Line(self.row(screen, [name for name, _ in self.head]), "head")
        if most is None or len(self.lines) <= most:
            return [head, *self.lines]
        left = len(self.lines) - max(most - 1, 0)
        return [head, *self.lines[: max(most - 1, 0)], Line("  … and %d more" % left, "faint")]


def header(status: dict[str, Any], point: dict[str, Any], screen: Screen) -> list[Line]:
    ready = status.get("ready")
    state = "ready" if ready else "not ready: %s" % clean(status.get("unready") or "?")
    left = "weir %s  %s  %s  up %s" % (
        clean(status.get("weir", "?")), clean(screen.address), state,
        uptime(number(status, "now") - number(status, "started")))
    now = time.strftime("%H:%M:%S", time.localtime(min(number(status, "now"), 1e11)))
    room = screen.width - columns(left) - len(now)
    lines = [Line(left + " " * room + now if room > 0 else left, "title" if ready else "bad")]

    failed, refused = point.get("failed"), point.get("refused")
    lines.append(Line("requests %s/s  p50 %s  p95 %s  p99 %s  failed %s/s  refused %s/s" % (
        rate(point.get("requests")), seconds(point.get("p50")), seconds(point.get("p95")),
        seconds(point.get("p99")), rate(failed), rate(refused)), "bad" if number(point, "failed") else ""))

    states = status.get("flights_by_state")
    parts = ["%s %s" % (clean(word), count(n)) for word, n in states.items() if n] if isinstance(states, dict) else []
    lines.append(Line("in flight %s%s" % (count(total(states)), ": " + ", ".join(parts) if parts else "")))

    workers = rows(status, "workers")
    busy, places, stuck, waiting = (sum(number(w, name) for w in workers)
                                    for name in ("busy", "places", "stuck", "waiting"))
    processes = status.get("processes") if isinstance(status.get("processes"), dict) else {}
    lines.append(Line("threads %d/%d busy, %d stuck, %d waiting  connections %s  crashed %d  recycled %d" % (
        busy, places, stuck, waiting, count(number(status, "totals", "open")),
        number(processes, "crashed"), total(processes.get("recycled"))),
        "bad" if stuck or (places and busy >= places and waiting) else ""))
    return lines


def workers_table(status: dict[str, Any], screen: Screen) -> Table:
    table = Table([("SLOT", -4), ("PID", -7), ("STATE", 0), ("BUSY", -7), ("STUCK", -5), ("WAIT", -4),
                   ("OPEN", -5), ("REQS", -6), ("RSS", -5), ("LAG99", -5), ("GIL99", -5), ("BEAT", -5)])
    for w in rows(status, "workers"):
        state = clean(w.get("state", "?"))
        if w.get("held"):
            state = "held" if state == "ready" else state + ",held"
        if w.get("recycle") not in (None, "none"):
            state += "," + clean(w["recycle"])
        silent = number(w, "beat_age") > 5
        full = number(w, "places") and number(w, "busy") >= number(w, "places")
        table.add(screen, [
            count(w.get("slot")), str(w.get("pid", "-")), state,
            "%s/%s" % (count(w.get("busy")), count(w.get("places"))), count(w.get("stuck")),
            count(w.get("waiting")), count(w.get("open")), count(w.get("requests")), size(w.get("rss_bytes")),
            seconds(w.get("loop_lag_p99")), seconds(w.get("gil_wait_p99")), seconds(w.get("beat_age")),
        ], "bad" if silent or number(w, "stuck") or (full and number(w, "waiting")) else "")
    return table


def routes_table(status: dict[str, Any], screen: Screen) -> Table:
    table = Table([("ROUTE", 0), ("REQS", -6), ("IN", -4), ("RUN", -7), ("QUEUE", -7), ("HEAD", -5),
                   ("P50", -5), ("P95", -5), ("P99", -5), ("5XX", -5), ("REF", -5)])
    for r in sorted(rows(status, "routes"), key=lambda r: (-number(r, "in_flight"), -number(r, "requests"))):
        gate = r.get("gate") if isinstance(r.get("gate"), dict) else None
        statuses = r.get("statuses") if isinstance(r.get("statuses"), dict) else {}
        refused = total(r.get("refused"))
        if not gate and not number(r, "requests") and not number(r, "in_flight"):
            continue
        failed = total({code: n for code, n in statuses.items() if str(code).startswith("5")})
        table.add(screen, [
            clean(r.get("route", "?")), count(r.get("requests")), count(r.get("in_flight")),
            "%s/%s" % (count(gate.get("running")), count(gate.get("concurrency"))) if gate else "",
            "%s/%s" % (count(gate.get("waiting")), count(gate.get("size"))) if gate else "",
            seconds(gate.get("head_age"), "") if gate else "",
            *(seconds(number_or_none(r, "total", q)) for q in ("p50", "p95", "p99")),
            count(failed) if failed else "", count(refused) if refused else "",
        ], "bad" if gate and number(gate, "waiting") else "")
    return table


def number_or_none(of: dict[str, Any], *path: str) -> Any:
    value: Any = of
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def flights_table(status: dict[str, Any], screen: Screen) -> Table:
    wide = screen.width >= 110
    head = [("AGE", -5), ("STATE", 11), ("IN IT", -5), ("WORKER", -6), ("USER", 24 if wide else 14)]
    if wide:
        head += [("ROUTE", 24), ("ID", -10)]
    table = Table([*head, ("REQUEST", 0)])
    for f in rows(status, "flights"):
        cells = [seconds(f.get("age")), clean(f.get("state", "?")), seconds(f.get("in_state")),
                 count(f.get("worker")), clean(f.get("user") or f.get("address") or "-")]
        if wide:
            cells += [clean(f.get("route", "")), str(f.get("id", ""))]
        table.add(screen, [*cells, clean("%s %s" % (f.get("method", ""), f.get("path", "")))],
                  "bad" if f.get("slow") or f.get("state") == "late" else "")
    return table


def queues_line(status: dict[str, Any]) -> list[Line]:
    queues = rows(status, "queues")
    if not queues:
        return []
    parts = ["%s %s" % (clean(q.get("user") or q.get("address") or "-"), count(q.get("waiting"))) for q in queues[:6]]
    return [Line("waiting by user: %s" % ", ".join(parts) + (", …" if len(queues) > 6 else ""))]


def status_lines(status: dict[str, Any], point: dict[str, Any], screen: Screen) -> list[Line]:
    """All lines, none wider than the screen; with a height at most as many as it has."""
    lines = header(status, point, screen)
    workers, routes = workers_table(status, screen), routes_table(status, screen)
    flights = flights_table(status, screen)
    height = screen.height
    most = screen.flights
    if height is None:
        parts = [workers.shown(screen, None), routes.shown(screen, None) + queues_line(status)]
        most = 20 if most is None else most
    else:
        # Requests get what is left; the tables above them give way.
        parts = [workers.shown(screen, max(2, height // 5)), routes.shown(screen, max(2, height // 4))]
        if height >= 24:
            parts[1] += queues_line(status)
    for part in parts:
        lines += [Line(""), *part] if part else []
    if height is not None:
        room = height - len(lines) - 3 - bool(screen.note)
        most = max(room, 1) if most is None else max(min(most, room), 0)
    shown = flights.lines[:most]
    found = int(min(number(status, "flights_total"), 1e9))
    screen.shown = len(shown)
    if shown:
        lines += [Line(""), Line(flights.row(screen, [name for name, _ in flights.head]), "head"), *shown]
    if found > len(shown):
        lines.append(Line("  … and %d more, by %s" % (found - len(shown), screen.sort), "faint"))
    elif not found:
        lines += [Line(""), Line("no request is in flight", "faint")]
    if height is not None:
        last = [Line(screen.note, "bad" if screen.bad else "faint")] if screen.note else []
        lines = [*lines[: height - len(last)], *last]
    return [Line(clip(clean(line.text.rstrip()), screen.width), line.style) for line in lines]


# ---- weir stacks ----

STATES = {"R": "computes", "S": "waits", "D": "waits for a disk", "T": "is stopped", "t": "is stopped",
          "Z": "has ended", "I": "is idle"}


def fold(text: str, width: int | None, indent: int) -> Iterable[str]:
    """Lines of at most `width` columns; the next ones are indented."""
    text = clean(text)
    while width is not None and columns(text) > width > indent + 10:
        head = clip(text, width + 1)[:-1]
        at = head.rfind(" ", indent + 1)
        cut = at if at > indent + 8 and head[:at].strip() else len(head)
        yield head[:cut].rstrip()
        text = " " * indent + text[cut:].lstrip()
    yield text


def thread_line(thread: dict[str, Any]) -> str:
    name = thread.get("name") or "?"
    parts = [STATES.get(str(thread.get("state")), "state %s" % thread.get("state"))]
    if thread.get("waits_in"):
        parts.append("in %s" % thread["waits_in"])
    if thread.get("lock") == "holds":
        held = thread.get("lock_for")
        parts.append("holds the interpreter lock" + (" for %s" % seconds(held) if held is not None else ""))
    elif thread.get("lock") == "waits":
        parts.append("waits for the interpreter lock")
    if isinstance(thread.get("cpu"), (int, float)):
        parts.append("cpu %.2fs" % thread["cpu"])
    return "  thread %s %s: %s" % (thread.get("thread", "?"), name, ", ".join(parts))


def request_line(request: dict[str, Any]) -> str:
    user = request.get("user")
    return "    request %s: %s %s%s, %s, for %s" % (
        request.get("id", "?"), request.get("method", ""), request.get("path", ""),
        " of %s" % user if user else "", request.get("state", "?"), seconds(request.get("age")))


def frame_lines(frame: dict[str, Any], width: int | None) -> Iterable[str]:
    line = frame.get("line")
    yield from fold("      %s  %s%s" % (frame.get("function") or "?", frame.get("file") or "?",
                                        ":%s" % line if line else ""), width, 8)
    source = clean(frame.get("source") or "").strip()
    if source:
        yield clip("          " + source, width) if width else "          " + source


def order(thread: dict[str, Any]) -> tuple[int, float]:
    """Requests first, the oldest before others; then who holds the lock, then Python, then the rest."""
    request = thread.get("request")
    if isinstance(request, dict):
        return 0, -number(request, "age")
    return 1 if thread.get("lock") == "holds" else 2 if thread.get("python") else 3, 0


def stacks_lines(stacks: dict[str, Any], width: int | None = None) -> list[str]:
    """Every thread of every worker. width None: nothing is folded."""
    lines: list[str] = []
    for w in rows(stacks, "workers"):
        took = w.get("took")
        lines += fold("worker %s, pid %s, %s%s" % (
            w.get("slot", "?"), w.get("pid", "?"), w.get("state", "?"),
            ", looked at in %s" % seconds(took) if took is not None else ""), width, 4)
        if w.get("error"):
            lines += fold("  no stacks: %s" % w["error"], width, 4)
        for thread in sorted(rows(w, "threads"), key=order):
            lines += fold(thread_line(thread), width, 4)
            if isinstance(thread.get("request"), dict):
                lines += fold(request_line(thread["request"]), width, 6)
            frames = rows(thread, "frames")
            if frames:
                lines += fold("    stack, newest call first%s:" % (
                    "" if thread.get("complete", True) else " (it ran on: perhaps of two moments)"), width, 6)
            for frame in frames:
                lines += frame_lines(frame, width)
            if thread.get("more_frames"):
                lines.append("      … older calls are left out")
        lines.append("")
    return lines[:-1] if lines else ["no worker runs"]
