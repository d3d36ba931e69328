"""The faults: what is broken, how often, and what must hold.

Each scenario takes a `Site` (it starts servers) and sizes, and returns a dict of figures with a list
`problems`, empty when all held. tests/e2e/test_faults.py runs them short, `make fault` long.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(HERE)]

from harness import Client, Incomplete, Server, Starter, wait_for  # noqa: E402
from load import Account, Answers, Load, OpenLoop, alive, children, cpu_seconds  # noqa: E402


class Site:
    """Starts servers of app.py; each has a ledger of its own."""

    def __init__(self, starter: Starter, say: Callable[[str], None] = lambda text: None) -> None:
        self.starter, self.folder, self.say = starter, starter.folder, say
        self.number = 0

    def serve(self, env: dict[str, str] | None = None, **settings: Any) -> tuple[Server, Path]:
        self.number += 1
        ledger = self.folder / f"ledger-{self.number}"
        settings.setdefault("threads", "8")
        server = self.starter("app:app", env={"LEDGER": str(ledger), **(env or {})}, cwd=HERE, **settings)
        return server, ledger


def workers(server: Server) -> list[int]:
    """The processes that serve: the children of the supervisor, or itself with --workers 0."""
    return [pid for pid in children(server.pid) if alive(pid)] or [server.pid]


def serving(server: Server, old: set[int]) -> int:
    """A worker not in `old` that answers a request on a new connection; 0: none did just now."""
    try:
        answer = server.get("/", timeout=2)
    except (OSError, Incomplete):
        return 0
    pid = int(answer.get("X-Worker") or 0)
    return pid if pid not in old else 0


def by_end(account: Account, allowed: Callable[[Any], bool]) -> list[str]:
    """Failures that nothing explains."""
    return [f"{f.id} on a connection of worker {f.worker}: {f.why}" for f in account.failures if not allowed(f)]


# ---- F1: a worker is killed ----


def kill_workers(site: Site, kills: int, n: int = 2, seed: int = 1, within_s: float = 1) -> dict[str, Any]:
    """kill -9 of a worker at random moments under load."""
    server, ledger = site.serve(workers=n)
    rnd = random.Random(seed)
    killed: list[tuple[int, float]] = []
    times: list[float] = []
    problems: list[str] = []
    fds = len(os.listdir(f"/proc/{server.pid}/fd"))
    with Load(server.address, ledger, clients=8, seed=seed) as load:
        for k in range(kills):
            known = set(wait_for(lambda: len(workers(server)) == n and workers(server), 10, "all workers are there"))
            time.sleep(rnd.uniform(0.0, 0.15))  # the random moment itself
            victim = rnd.choice(sorted(known))
            at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            killed.append((victim, at))
            try:
                wait_for(lambda: serving(server, known), 10, "a new worker answers")
                times.append(time.monotonic() - at)
            except AssertionError:
                problems.append(f"after kill {k + 1} no new worker answered within 10 s")
                break
            if (k + 1) % 20 == 0:
                site.say(f"{k + 1} of {kills} workers killed, {load.requests()} requests answered")
        wait_for(lambda: len(workers(server)) == n, 10, "all workers are there at the end")
        account = load.stop()

    def explained(f: Any) -> bool:
        # Its connection belonged to a killed worker, and it was under way when that one died. A
        # connection that nobody had answered on yet may have been any worker's.
        return any(f.began <= at + 0.05 and f.ended >= at - 0.05 and f.worker in (0, pid) for pid, at in killed)

    strange = by_end(account, explained)
    if strange:
        problems.append(f"{len(strange)} failures were not those of a killed worker: {strange[:3]}")
    if account.refused:
        problems.append(f"{len(account.refused)} connections were refused")
    late = [t for t in times if t > within_s]
    if late:
        problems.append(f"{len(late)} replacements took longer than {within_s:g} s (most {max(late):.2f})")
    more = len(os.listdir(f"/proc/{server.pid}/fd")) - fds
    if more > 0:
        problems.append(f"the supervisor holds {more} descriptors more than before")
    problems += load.check_ledger()
    return {"kills": len(killed), "requests": load.requests(), "failed": len(account.failures),
            "replacement p50 ms": round(statistics.median(times) * 1000) if times else None,
            "replacement max ms": round(max(times) * 1000) if times else None, "problems": problems}


# ---- F2: the supervisor is killed ----


def kill_supervisor(site: Site, kills: int, n: int = 2) -> dict[str, Any]:
    """kill -9 of the supervisor: nobody keeps the port, a restart works at once."""
    problems: list[str] = []
    times: list[float] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for k in range(kills):
        server, ledger = site.serve(workers=n, bind=f"127.0.0.1:{port}")
        server.expected_status = (-signal.SIGKILL,)
        old = workers(server)
        with Load(("127.0.0.1", port), ledger, clients=4, seed=k + 1) as load:
            wait_for(lambda: load.requests() > 20, 10, "requests are answered")
            server.kill(signal.SIGKILL)
            at = time.monotonic()
            server.wait_end()
            with contextlib.suppress(AssertionError):
                wait_for(lambda: can_listen(port), 5, "the port is free")
            free = time.monotonic() - at
            load.stop()
        times.append(free)
        if free > 1:
            problems.append(f"kill {k + 1}: the port was free only after {free:.2f} s")
        problems += load.check_ledger()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(alive(pid) for pid in old), 15, "the workers have ended")
        left = [pid for pid in old if alive(pid)]
        if left:
            problems.append(f"kill {k + 1}: workers {left} outlived the supervisor")
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        if (k + 1) % 10 == 0:
            site.say(f"{k + 1} of {kills} supervisors killed")
    server, _ = site.serve(workers=n, bind=f"127.0.0.1:{port}")  # and once more, to serve
    if server.get("/").status != 200:
        problems.append("the restart does not serve")
    return {"kills": kills, "port free max ms": round(max(times) * 1000), "problems": problems}


def can_listen(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError:
            return False
    return True


# ---- F7, F9: reload, recycling and upgrade lose nothing ----


def nothing_failed(load: Load) -> list[str]:
    account, problems = load.account, load.check_ledger()
    if account.failures:
        problems.append(f"{len(account.failures)} requests failed: {by_end(account, lambda f: False)[:3]}")
    if account.refused:
        problems.append(f"{len(account.refused)} connections were refused")
    other = {status for status in account.statuses if status != 200}
    if other:
        problems.append(f"answers other than 200: {other}")
    return problems


def reload_and_recycle(site: Site, requests: int, n: int = 2) -> dict[str, Any]:
    """HUP again and again while workers are also replaced by max-requests, under clients that never retry."""
    server, ledger = site.serve(workers=n, max_requests=300, max_requests_jitter=100, keep_alive="1s")
    reloads = 0
    with Load(server.address, ledger, clients=8, slow=0.01, idle=0.002, idle_around=1.0) as load:
        while load.requests() < requests:
            now = load.requests()
            server.kill(signal.SIGHUP)
            reloads += 1
            wait_for(lambda: server.log.count("new workers serve") >= reloads, 20, "the reload is over")
            wait_for(lambda: load.requests() > now + requests // 20 or load.requests() >= requests, 60, "requests go on")
            if reloads % 5 == 0:
                site.say(f"{load.requests()} requests, {reloads} reloads")
        load.stop()
    return {"requests": load.requests(), "reloads": reloads,
            "replaced by max-requests": server.log.count("max-requests"), "problems": nothing_failed(load)}


def upgrades(site: Site, times: int, n: int = 2) -> dict[str, Any]:
    """USR2, and TERM to the old supervisor, again and again under load."""
    pid_file = site.folder / "weir.pid"
    server, ledger = site.serve(workers=n, pid_file=pid_file)
    pid = server.pid
    with Load(server.address, ledger, clients=6, slow=0.01) as load:
        for k in range(times):
            wait_for(lambda: load.requests() > 200 * (k + 1), 60, "requests are answered")
            os.kill(pid, signal.SIGUSR2)
            new = wait_for(lambda: (server.log.count(" serving app:app on ") == k + 2) and other_pid(pid_file, pid), 20,
                           "the successor serves")
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: server.process.poll() is not None if pid == server.pid else not alive(pid), 20,
                     "the old supervisor has ended")
            pid = new
        wait_for(lambda: load.requests() > 200 * (times + 1), 60, "requests are answered at the end")
        load.stop()
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alive(pid), 20, "the last one has ended")
    return {"upgrades": times, "requests": load.requests(), "problems": nothing_failed(load)}


def other_pid(pid_file: Path, old: int) -> int:
    """The number in the successor's pid file; 0: there is none yet."""
    for path in (pid_file.with_name(pid_file.name + ".2"), pid_file):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text())
            if pid != old:
                return pid
    return 0


# ---- F10: descriptors run out ----


def few_descriptors(site: Site, limit: int = 64, clients: int = 200, seconds: float = 3) -> dict[str, Any]:
    """More clients than descriptors: no spin, a bounded log, and recovery within a second."""
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    server, _ = site.serve(workers=1, threads="4", preexec=lower)
    problems: list[str] = []
    [worker] = workers(server)
    held: list[socket.socket] = []
    refused, lines = 0, server.log.count("\n")
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            s = stack.enter_context(socket.create_connection(server.address, 10))
            # An unfinished request: the server cannot make room by closing what is idle.
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Wait: ")
            held.append(s)
        before, at = cpu_seconds(worker), time.monotonic()
        while time.monotonic() - at < seconds:
            time.sleep(0.05)  # the time over which the processor is looked at
        load = (cpu_seconds(worker) - before) / (time.monotonic() - at)
        more = server.log.count("\n") - lines
        for s in held:
            s.setblocking(False)
            with contextlib.suppress(OSError):
                refused += s.recv(4096).startswith(b"HTTP/1.1 503")
    at = time.monotonic()
    wait_for(lambda: serving(server, set()), 10, "the server serves again")
    again = time.monotonic() - at
    if load > 0.2:
        problems.append(f"the worker used {load:.0%} of a core while no descriptor was left")
    if again > 1:
        problems.append(f"serving again took {again:.2f} s")
    if more > 15 * (seconds + 3):
        problems.append(f"{more} log lines in {seconds} s")
    if not alive(worker):
        problems.append("the worker has ended")
    return {"clients": clients, "told 503": refused, "core %": round(load * 100, 1), "log lines": more,
            "serving again ms": round(again * 1000), "problems": problems}


# ---- F14: connections that come and go ----


def churn(site: Site, connections: int, n: int = 2) -> dict[str, Any]:
    """Connect, perhaps send a little, and reset; a probe must hardly notice."""
    server, _ = site.serve(workers=n)
    problems: list[str] = []
    known = workers(server)
    wait_for(lambda: serving(server, set()), 10)
    fds = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in known}
    rnd, done = random.Random(1), threading.Event()
    latencies: list[float] = []
    failed: list[str] = []

    def probe() -> None:
        while not done.is_set():
            at = time.monotonic()
            try:
                if server.get("/", timeout=5).status != 200:
                    failed.append("status")
            except (OSError, Incomplete) as e:
                failed.append(str(e))
            latencies.append(time.monotonic() - at)
            done.wait(0.005)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    at = time.monotonic()
    linger = struct.pack("ii", 1, 0)
    pieces = (b"", b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
              b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    for k in range(connections):
        s = socket.socket()
        try:
            s.connect(server.address)
            s.send(rnd.choice(pieces))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except OSError as e:
            failed.append(f"connect: {e}")
        s.close()
        if (k + 1) % 20000 == 0:
            site.say(f"{k + 1} of {connections} connections reset")
    took = time.monotonic() - at
    done.set()
    thread.join(10)
    if workers(server) != known:
        problems.append("a worker was replaced")
    with contextlib.suppress(AssertionError):
        wait_for(lambda: all(len(os.listdir(f"/proc/{p}/fd")) <= fds[p] + 1 for p in known), 10)
    left = {p: len(os.listdir(f"/proc/{p}/fd")) - fds[p] for p in known if alive(p)}
    if any(more > 1 for more in left.values()):
        problems.append(f"descriptors left over: {left}")
    if len(failed) > max(1, len(latencies)) * 0.001:
        problems.append(f"{len(failed)} of {len(latencies)} probes failed: {failed[:3]}")
    return {"connections": connections, "seconds": round(took, 1), "probes": len(latencies),
            "probes failed": len(failed), "probe max ms": round(max(latencies) * 1000), "problems": problems}


# ---- F11: memory ----


def build_failmalloc(folder: Path) -> Path:
    target = folder / "failmalloc.so"
    if not target.exists():
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(target), str(HERE / "failmalloc.c"), "-ldl"],
                       check=True)
    return target


def failing_allocations(site: Site, requests: int, per_million: int = 2000) -> dict[str, Any]:
    """Allocations of Weir's own code fail by chance: 503 or a closed connection, never a crash."""
    control = site.folder / "failmalloc"
    control.write_bytes(bytes(8))
    server, ledger = site.serve(env={"LD_PRELOAD": str(build_failmalloc(site.folder)), "FAILMALLOC": str(control)},
                                workers=1)
    problems: list[str] = []
    [worker] = workers(server)
    with Load(server.address, ledger, clients=6, new=0.3) as load:
        wait_for(lambda: load.requests() > 50, 10, "requests are answered")
        with open(control, "r+b") as f:
            f.write(struct.pack("I", per_million))
        last = 0
        while sum(load.account.statuses.values()) + len(load.account.failures) < requests:
            now = load.requests()
            wait_for(lambda: load.requests() > now or not alive(worker), 20, "requests go on")
            if not alive(worker):
                break
            if now - last > 20000:
                last = now
                site.say(f"{now} requests answered")
        with open(control, "r+b") as f:
            f.write(struct.pack("I", 0))
        account = load.stop()
    failed = struct.unpack("II", control.read_bytes())[1]
    if workers(server) != [worker]:
        problems.append("the worker crashed")
    if not failed:
        problems.append("no allocation failed: this run shows nothing")
    strange = {status for status in account.statuses if status not in (200, 503)}
    if strange:
        problems.append(f"answers other than 200 and 503: {strange}")
    if server.get("/").status != 200:
        problems.append("does not serve afterwards")
    problems += load.check_ledger()
    return {"allocations failed": failed, "requests": sum(account.statuses.values()),
            "503": account.statuses[503], "closed": len(account.failures), "problems": problems}


def memory_limit(site: Site, requests: int = 40) -> dict[str, Any]:
    """The worker may have little more memory than it has: large bodies get 503, small requests 200."""
    server, _ = site.serve(workers=1, threads="4", body_memory="1G", memory_budget="10G", max_body_size="1G")
    problems: list[str] = []
    [worker] = workers(server)
    server.get("/")
    size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker, resource.RLIMIT_AS, (size + 48 * 2**20, resource.RLIM_INFINITY))
    statuses: list[int] = []
    small = 0
    for _ in range(requests):
        with Client(server.address, 20) as big:
            # What is promised is larger than what there is room for.
            with contextlib.suppress(OSError, Incomplete):
                big.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        big.send(bytes(1000000))
                statuses.append(big.response().status)
        small += server.get("/").status == 200
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if workers(server) != [worker]:
        problems.append("the worker crashed")
    if any(status not in (503, 413) for status in statuses):
        problems.append(f"answers to large bodies: {sorted(set(statuses))}")
    if small != requests:
        problems.append(f"{requests - small} of {requests} small requests failed")
    return {"large": len(statuses), "503": statuses.count(503), "small answered": small, "problems": problems}


# ---- disk full ----


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of a few megabytes; needs root."""
    target = folder / "disk"
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "none", str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


def disk_full(site: Site, requests: int = 20) -> dict[str, Any]:
    """Bodies that do not fit on the disk of --temp-dir get 503; others go on; space returns."""
    problems: list[str] = []
    with small_disk(site.folder) as disk:
        server, _ = site.serve(workers=1, temp_dir=disk, body_memory="64k")
        statuses = []
        for _ in range(requests):
            with Client(server.address, 20) as c:
                with contextlib.suppress(OSError):
                    c.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
                    for _ in range(80):
                        c.send(bytes(100000))
                try:
                    statuses.append(c.response().status)
                except (OSError, Incomplete):
                    statuses.append(0)
            if server.get("/").status != 200:
                problems.append("a small request failed")
        fits = server.ask("POST", "/", body=bytes(500000)).status
        server.stop()
    if fits != 200:
        problems.append(f"a body that fits got {fits} afterwards")
    if any(status != 503 for status in statuses):
        problems.append(f"answers to bodies that do not fit: {sorted(set(statuses))}")
    return {"bodies": len(statuses), "503": statuses.count(503), "problems": problems}


# ---- overload ----

OVERLOAD = """\
identify: [bearer, address]
routes:
  - {match: POST /*, require: user, concurrency: 8, queue: {size: 200, wait: 1s}}
"""


def overload(site: Site, seconds: float, times: float = 3, refused_ms: float = 50, n: int = 2) -> dict[str, Any]:
    """Three times what it can serve, in an open loop: goodput stays, refusals are fast, and the end is soon."""
    places, ms = 8, 50
    config = site.folder / "overload.yaml"
    config.write_text(OVERLOAD)
    server, ledger = site.serve(workers=n, threads=places, config=config, connections=2000)
    problems: list[str] = []
    loop = OpenLoop(server.address, f"/?ms={ms}", users=40)
    with contextlib.closing(loop):
        alone = loop.run(max(3.0, min(seconds / 10, 20)), clients=2 * places)
        peak = rate_of(alone, max(3.0, min(seconds / 10, 20)))
        site.say(f"peak: {peak:.1f} answers a second, {places} places of {ms} ms each could give {places * 1000 / ms:.0f}")
        before = loop.serial
        out = loop.run(seconds, rate=times * peak)
    goodput = rate_of(out, seconds)
    early = sorted(t for reason in ("queue_late", "queue_full") for t in out.refusals.get(reason, []))
    median = statistics.median(early) * 1000 if early else 0
    p99 = early[int(len(early) * 0.99)] * 1000 if early else 0
    if goodput < 0.9 * peak:
        problems.append(f"goodput {goodput:.1f} a second is below 90 % of the peak of {peak:.1f}")
    if not early:
        problems.append("nothing was refused early: this run shows nothing")
    if median > refused_ms:
        problems.append(f"half of the refusals took longer than {median:.1f} ms")
    if out.drained > 5:
        problems.append(f"the last answer came {out.drained:.1f} s after the last request")
    if out.other:
        problems.append(f"other ends: {dict(out.other)}")
    ran = [line for line in ledger.read_text().split() if int(line[1:]) > before]
    if len(ran) != len(set(ran)) or len(ran) != len(out.good):
        problems.append(f"{len(ran)} requests ran, {len(out.good)} were answered 200")
    return {"seconds": seconds, "offered a second": round(times * peak), "sent": out.sent, "peak a second": round(peak, 1),
            "goodput a second": round(goodput, 1), "goodput %": round(100 * goodput / peak, 1), "refused": out.refused,
            "reasons": {k: len(v) for k, v in sorted(out.refusals.items())}, "refused p50 ms": round(median, 1),
            "refused p99 ms": round(p99, 1), "client late max ms": round(out.late * 1000),
            "drained s": round(out.drained, 2), "problems": problems}


def rate_of(answers: Answers, seconds: float) -> float:
    """Good answers a second, without the first second."""
    return sum(1 < at <= seconds for at in answers.good) / (seconds - 1)
