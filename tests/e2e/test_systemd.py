"""systemd's side, played by the test: the sockets that it opens, and what it wants to hear.

sd_notify(3), sd_listen_fds(3). The real one starts the service in tests of the packages.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, PYTHON, Client, Starter, wait_for, weir_command


class Manager:
    """The socket of the service manager, and all that came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.socket.setblocking(False)
        self.messages: list[tuple[int, dict[str, str]]] = []  # sender and variables

    def hear(self) -> list[tuple[int, dict[str, str]]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _, _ = self.socket.recvmsg(4096, 128)
                pid = int.from_bytes(ancillary[0][2][:4], "little")
                fields = dict(line.split("=", 1) for line in data.decode().splitlines())
                self.messages.append((pid, fields))
        return self.messages

    def all(self, name: str) -> list[str]:
        return [fields[name] for _, fields in self.hear() if name in fields]

    def wait(self, name: str, count: int = 1, timeout: float = 10) -> list[str]:
        try:
            return wait_for(lambda: len(self.all(name)) >= count and self.all(name), timeout)
        except AssertionError:
            raise AssertionError(f"{name} did not come {count} times: {self.messages}") from None


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify")
    if getattr(request, "param", "path") == "abstract":
        name = f"@weir-test-{os.getpid()}-{time.monotonic_ns()}"
    m = Manager(name)
    yield m
    m.socket.close()


def told(m: Manager, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": m.name, **more}


@pytest.mark.parametrize("manager", ["path", "abstract"], indirect=True)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_service_is_ready_when_it_serves_and_stopping_when_it_stops(
        weir: Starter, manager: Manager, workers: int) -> None:
    server = weir("basic:app", workers=workers, env=told(manager))
    manager.wait("READY")
    assert manager.all("READY") == ["1"]
    assert manager.all("STATUS")[-1] == ("2 workers serve" if workers else "serving")
    assert server.get("/hello").status == 200
    assert server.stop() == 0
    assert manager.wait("STOPPING") == ["1"]
    assert {pid for pid, _ in manager.hear()} == {server.pid}, "only the main process speaks"


def test_a_start_that_fails_is_never_ready(weir: Starter, manager: Manager) -> None:
    server = weir("nosuchmodule:app", workers=2, env=told(manager), ready=False)
    server.expected_status = (4,)
    assert server.wait_end() == 4
    assert manager.all("READY") == []


def test_a_reload_says_so_with_the_time_of_the_monotonic_clock(weir: Starter, manager: Manager) -> None:
    server = weir("basic:app", workers=2, env=told(manager))
    manager.wait("READY")
    before = time.monotonic_ns() // 1000
    server.kill(signal.SIGHUP)
    manager.wait("READY", 2)
    fields = [fields for _, fields in manager.hear()]
    reloading = next(f for f in fields if "RELOADING" in f)
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert fields.index(reloading) < max(i for i, f in enumerate(fields) if "READY" in f)


def test_a_reload_that_fails_ends_the_reloading_too(weir: Starter, manager: Manager, tmp_path: Path) -> None:
    app = tmp_path / "changing.py"
    app.write_text("from basic import app\n")
    server = weir("changing:app", workers=2, env=told(manager), cwd=tmp_path,
                  pythonpath=APPS)
    manager.wait("READY")
    app.write_text("raise RuntimeError('broken')\n")
    server.kill(signal.SIGHUP)
    manager.wait("READY", 2)
    assert manager.all("RELOADING") == ["1"]
    assert server.get("/hello").status == 200


@pytest.mark.parametrize("workers", [0, 2])
def test_the_watchdog_is_fed_in_time(weir: Starter, manager: Manager, workers: int) -> None:
    weir("basic:app", workers=workers, env=told(manager, WATCHDOG_USEC=str(600_000)))
    manager.wait("WATCHDOG", 3)
    times = []
    for _ in range(4):
        have = len(manager.all("WATCHDOG"))
        manager.wait("WATCHDOG", have + 1)
        times.append(time.monotonic())
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert max(gaps) < 0.6 * PATIENCE and min(gaps) > 0.1, gaps


def test_the_watchdog_goes_hungry_when_no_worker_can_be_started(
        weir: Starter, manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "sometimes.py").write_text(
        "import os\nif os.path.exists('broken'): raise RuntimeError('broken')\nfrom basic import app\n")
    server = weir("sometimes:app", workers=1, env=told(manager, WATCHDOG_USEC="600000"), cwd=tmp_path,
                  pythonpath=APPS)
    manager.wait("WATCHDOG", 2)
    (tmp_path / "broken").touch()
    os.kill(int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()), signal.SIGKILL)
    server.wait_log("a worker could not start; 0 serve")
    have = len(manager.all("WATCHDOG"))
    server.wait_log("a worker could not start; 0 serve", count=3)
    assert len(manager.all("WATCHDOG")) == have
    (tmp_path / "broken").unlink()
    manager.wait("WATCHDOG", have + 2)
    assert server.get("/hello").status == 200


def test_the_watchdog_of_another_process_is_left_alone(weir: Starter, manager: Manager) -> None:
    weir("basic:app", env=told(manager, WATCHDOG_USEC="200000", WATCHDOG_PID="1"))
    manager.wait("READY")
    with pytest.raises(AssertionError):
        manager.wait("WATCHDOG", timeout=0.5)


# ---- socket activation ----

# Sets LISTEN_PID to its own process, as systemd does between fork and exec, and becomes weir.
ACTIVATE = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"


def activated(weir: Starter, sockets: list[socket.socket], *arguments: str,
              more_env: dict[str, str] | None = None, **more: object):
    """Start weir with these sockets as descriptors 3, 4, …"""
    copies = [os.dup(s.fileno()) for s in sockets]

    def place() -> None:
        kept = [os.dup2(fd, 100 + i) for i, fd in enumerate(copies)]
        for i, fd in enumerate(kept):
            os.dup2(fd, 3 + i)
            os.set_inheritable(3 + i, True)

    try:
        return weir(command=[PYTHON, "-c", ACTIVATE, *weir_command(), "--grace=10s", *arguments],
                    env={"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(["web"] * len(sockets)),
                         **(more_env or {})},
                    pass_fds=tuple(range(3, 3 + len(sockets))), preexec=place, **more)
    finally:
        for fd in copies:
            os.close(fd)


@pytest.mark.parametrize("workers", [0, 2])
def test_sockets_of_the_service_manager_are_served_and_stay_its_own(
        weir: Starter, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "web.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        server = activated(weir, [tcp, unix], f"--workers={workers}", "basic:app")
        assert server.urls == ["http://127.0.0.1:%d" % tcp.getsockname()[1], f"http://unix:{path}"]
        for address in (tcp.getsockname(), str(path)):
            with Client(address) as c:
                assert c.get("/hello").status == 200
        if workers:
            server.kill(signal.SIGHUP)
            server.wait_log(re.compile("reloaded"))
            for address in (tcp.getsockname(), str(path)):
                with Client(address) as c:
                    assert c.get("/hello").status == 200
        assert server.stop() == 0
        assert path.exists(), "the file of the service manager's socket is not ours"
        # Connections that come now wait for the next start.
        waiting = Client(str(path))
        waiting.request("GET", "/hello")
        again = activated(weir, [tcp, unix], f"--workers={workers}", "basic:app")
        assert waiting.response().status == 200
        waiting.close()
        assert again.stop() == 0


def test_sockets_for_another_process_are_not_taken(weir: Starter) -> None:
    server = weir("basic:app", env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert server.get("/hello").status == 200
