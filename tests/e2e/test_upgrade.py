"""USR2: a new supervisor beside the old one, on the same sockets, and back again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, PYTHON, Client, Incomplete, Server, Starter, wait_for, weir_command
from test_process import alive, command_line, workers_of
from test_systemd import Manager, activated

SERVES = re.compile(r"the new supervisor (\d+) serves beside this one")


def begin(server: Server) -> int:
    """USR2: the pid of the new supervisor, once it serves."""
    seen = len(SERVES.findall(server.log))
    server.kill(signal.SIGUSR2)
    server.wait_log(SERVES, 20, seen + 1)
    return int(SERVES.findall(server.log)[-1])


@contextlib.contextmanager
def upgraded(server: Server) -> Iterator[int]:
    """A server with a second supervisor, which is ended too."""
    pid = begin(server)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), 20, "the new supervisor ends")


def answering(server: Server, n: int = 30) -> set[int]:
    """Workers that answer new connections."""
    return {int(server.get("/pid").text) for _ in range(n)}


class Load:
    """Keep-alive clients that never retry; what went wrong."""

    def __init__(self, server: Server, clients: int = 6) -> None:
        self.failed: list[str] = []
        self.answers = 0
        self.over = threading.Event()
        self.address = server.address
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]

    def run(self, number: int) -> None:
        n = 0
        while not self.over.is_set():
            try:
                with Client(self.address) as c:
                    while not self.over.is_set():
                        n += 1
                        if n % 3:
                            r = c.get("/pid")
                        else:
                            r = c.ask("POST", "/pid", body=b"x" * 100)
                        self.answers += 1
                        if r.status != 200:
                            self.failed.append(f"{r.status}")
                        if not r.keep:
                            break
                        if number == 0:
                            time.sleep(0.01)
            except (OSError, Incomplete) as error:
                self.failed.append(repr(error))

    def __enter__(self) -> Load:
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for t in self.threads:
            t.join(30)


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_the_new_supervisor_takes_over_and_no_request_fails(weir: Starter, tmp_path: Path, where: str) -> None:
    path, pid_file = tmp_path / "weir.sock", tmp_path / "weir.pid"
    server = weir("procs:app", workers=2, threads=4, pid_file=pid_file, keep_alive="60s",
                  bind=f"unix:{path}" if where == "unix" else "127.0.0.1:0")
    old_workers = set(server.worker_pids())
    with Load(server) as load, upgraded(server) as new:
        new_workers = set(workers_of(new))
        assert len(new_workers) == 2 and not new_workers & old_workers
        wait_for(lambda: answering(server) == old_workers | new_workers, what="both serve")
        assert pid_file.read_text() == f"{server.pid}\n"
        assert (tmp_path / "weir.pid.2").read_text() == f"{new}\n"
        assert command_line(new) == "weir: supervisor [procs:app]"
        idle = [server.client() for _ in range(20)]
        asked = {int(c.get("/pid").text) for c in idle}
        assert asked & old_workers
        assert server.stop() == 0
        wait_for(lambda: pid_file.exists() and pid_file.read_text() == f"{new}\n", what="the pid file changes hands")
        assert not (tmp_path / "weir.pid.2").exists()
        server.wait_log(f"the supervisor {server.pid} has ended; this one ({new}) is the main one now")
        # The connections of the old workers are still open, and others answer on them.
        for c in idle:
            r = c.get("/pid")
            assert int(r.text) in new_workers and r.keep
        assert answering(server) <= new_workers
        answers = load.answers
        wait_for(lambda: load.answers > answers + 200, what="the load goes on")
        load.over.set()
    assert load.failed == []
    assert load.answers > 300
    assert not path.exists() and not pid_file.exists()


def test_the_new_supervisor_can_be_ended_to_go_back(weir: Starter, tmp_path: Path) -> None:
    path, pid_file = tmp_path / "weir.sock", tmp_path / "weir.pid"
    server = weir("procs:app", workers=2, threads=4, pid_file=pid_file, bind=f"unix:{path}", keep_alive="60s")
    old_workers = set(server.worker_pids())
    with Load(server) as load:
        with upgraded(server) as new:
            idle = [server.client() for _ in range(20)]
            asked = {int(c.get("/pid").text) for c in idle}
            assert asked & set(workers_of(new))
        server.wait_log(f"the new supervisor {new} ended with exit code 0; this one goes on")
        assert path.exists() and pid_file.read_text() == f"{server.pid}\n"
        assert not (tmp_path / "weir.pid.2").exists()
        for c in idle:
            assert int(c.get("/pid").text) in old_workers
        wait_for(lambda: answering(server) == old_workers, what="the old workers answer")
        # And once more, as if nothing had been.
        with upgraded(server) as again:
            assert again != new
    assert load.failed == []
    assert server.stop() == 0
    assert not path.exists() and not pid_file.exists()


@pytest.mark.parametrize(("version", "status"), [("broken", "exit code 4"), ("deadly", "exit code 3")])
def test_a_new_version_that_cannot_start_leaves_the_old_one_untouched(
        weir: Starter, tmp_path: Path, version: str, status: str) -> None:
    path, pid_file = tmp_path / "weir.sock", tmp_path / "weir.pid"
    server = weir("procs:app", workers=2, cwd=tmp_path, pythonpath=APPS, bind=f"unix:{path}", pid_file=pid_file)
    workers = set(server.worker_pids())
    (tmp_path / "version").write_text(version)
    server.kill(signal.SIGUSR2)
    server.wait_log(re.compile(rf"the new supervisor \d+ ended with {status} before it served; this one goes on"), 20)
    assert path.exists() and pid_file.read_text() == f"{server.pid}\n"
    assert set(server.worker_pids()) == workers
    wait_for(lambda: answering(server) == workers, what="both old workers answer")
    assert not (tmp_path / "weir.pid.2").exists()
    # A better version then succeeds.
    (tmp_path / "version").write_text("2")
    with upgraded(server):
        wait_for(lambda: {server.get("/version").text for _ in range(20)} == {"", "2"})
        server.stop()
        assert {server.get("/version").text for _ in range(20)} == {"2"}


def test_a_second_usr2_is_refused_while_one_is_under_way(weir: Starter, tmp_path: Path) -> None:
    server = weir("procs:app", workers=1, cwd=tmp_path, pythonpath=APPS)
    (tmp_path / "version").write_text("slow")
    server.kill(signal.SIGUSR2)
    server.wait_log("USR2: starting a new supervisor")
    server.kill(signal.SIGUSR2)
    server.wait_log(re.compile(r"USR2 has no effect: process \d+, which the last one started, is not ready yet"))
    server.wait_log(SERVES, 20)
    new = int(SERVES.findall(server.log)[-1])
    server.kill(signal.SIGUSR2)
    server.wait_log(re.compile(r"USR2 has no effect: process \d+, which the last one started, serves already"))
    os.kill(new, signal.SIGUSR2)
    server.wait_log(f"USR2 has no effect: the supervisor before this one ({server.pid}) has not ended")
    assert server.stop() == 0
    server.wait_log("is the main one now")
    # The new one can be replaced in its turn.
    os.kill(new, signal.SIGUSR2)
    wait_for(lambda: len(SERVES.findall(server.log)) == 2, 20)
    third = int(SERVES.findall(server.log)[-1])
    for pid in (new, third):
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), 20)


def test_a_stop_while_the_new_one_starts_leaves_the_socket_to_it(weir: Starter, tmp_path: Path) -> None:
    path, pid_file = tmp_path / "weir.sock", tmp_path / "weir.pid"
    server = weir("procs:app", workers=1, cwd=tmp_path, pythonpath=APPS, bind=f"unix:{path}", pid_file=pid_file)
    (tmp_path / "version").write_text("slow")
    server.kill(signal.SIGUSR2)
    server.wait_log("USR2: starting a new supervisor")
    new = int(re.search(r"starting a new supervisor \((\d+)\)", server.log)[1])  # type: ignore[index]
    assert server.stop() == 0
    assert server.get("/version").text == "slow"  # waited in the queue until somebody served
    wait_for(lambda: pid_file.exists() and pid_file.read_text() == f"{new}\n")
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: not alive(new), 20)
    assert not path.exists() and not pid_file.exists()


def test_a_killed_old_supervisor_is_replaced_by_the_new_one(weir: Starter, tmp_path: Path) -> None:
    path, pid_file = tmp_path / "weir.sock", tmp_path / "weir.pid"
    server = weir("procs:app", workers=2, threads=4, bind=f"unix:{path}", pid_file=pid_file, keep_alive="60s")
    with Load(server) as load, upgraded(server) as new:
        idle = [server.client() for _ in range(20)]
        assert {int(c.get("/pid").text) for c in idle} & set(server.worker_pids())
        server.kill(signal.SIGKILL)
        server.expected_status = (server.wait_end(),)
        wait_for(lambda: pid_file.read_text() == f"{new}\n")
        for c in idle:
            assert int(c.get("/pid").text) in set(workers_of(new))
        assert path.exists()
        load.over.set()
    assert load.failed == []
    assert not path.exists()


def test_the_new_supervisor_reads_the_configuration_again(weir: Starter, tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        second = s.getsockname()[1]
    config = tmp_path / "weir.yaml"
    config.write_text('workers: 1\nbind: ["127.0.0.1:0"]\n')
    server = weir("procs:app", cwd=tmp_path, pythonpath=APPS, bind=None)
    config.write_text(f'workers: 3\nbind: ["127.0.0.1:0", "127.0.0.1:{second}"]\n')
    with upgraded(server) as new:
        assert len(workers_of(new)) == 3
        assert server.stop() == 0
        assert server.get("/pid").status == 200  # port 0 is the port that it was
        with Client(("127.0.0.1", second)) as c:
            assert c.get("/pid").status == 200
        # A reload of the new one keeps what was handed over.
        os.kill(new, signal.SIGHUP)
        server.wait_log("reloaded: 3 new workers serve")
        assert server.get("/pid").status == 200


def test_the_service_manager_hears_of_the_new_main_process(weir: Starter, tmp_path: Path) -> None:
    m = Manager(str(tmp_path / "notify"))
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        server = activated(weir, [tcp], "--workers=1", "basic:app",
                           more_env={"NOTIFY_SOCKET": m.name, "WATCHDOG_USEC": "600000"})
        m.wait("READY")
        with upgraded(server) as new:
            assert m.all("MAINPID") == [] and {pid for pid, _ in m.hear()} == {server.pid}
            assert server.stop() == 0
            m.wait("MAINPID")
            assert (server.pid, {"MAINPID": str(new)}) in m.hear()
            assert m.all("STOPPING") == []
            m.wait("READY", 2)
            wait_for(lambda: (new, {"WATCHDOG": "1"}) in m.hear(), what="the new one feeds the watchdog")
            with Client(tcp.getsockname()) as c:
                assert c.get("/hello").status == 200
        assert m.all("STOPPING") == ["1"]
    m.socket.close()


def test_a_server_with_a_template_can_be_upgraded(weir: Starter) -> None:
    server = weir("procs:app", workers=2, preload=True, threads=4)
    with Load(server) as load, upgraded(server) as new:
        assert server.stop() == 0
        assert answering(server) < set(workers_of(new)), "two workers and a template"
        load.over.set()
    assert load.failed == []


def test_a_daemon_can_be_upgraded(tmp_path: Path) -> None:
    path, pid_file, log = tmp_path / "weir.sock", tmp_path / "weir.pid", tmp_path / "error.log"
    subprocess.run([*weir_command(), "--daemon", f"--pid-file={pid_file}", f"--bind=unix:{path}",
                    f"--error-log={log}", "--grace=5s", "basic:app"], cwd=APPS, check=True, timeout=30 * PATIENCE)
    old = int(pid_file.read_text())
    os.kill(old, signal.SIGUSR2)
    new = int(wait_for(lambda: SERVES.search(log.read_text()), 20)[1])
    os.kill(old, signal.SIGTERM)
    wait_for(lambda: not alive(old), 20)
    wait_for(lambda: pid_file.exists() and pid_file.read_text() == f"{new}\n")
    with Client(str(path)) as c:
        assert c.get("/hello").status == 200
    os.kill(new, signal.SIGTERM)
    wait_for(lambda: not alive(new), 20)
    assert not path.exists() and not pid_file.exists()


def test_the_hook_pre_exec_runs_in_the_new_process(weir: Starter, tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("import os\ndef pre_exec(server):\n"
                      "    server.log.info('pre_exec in %d, child of %d', os.getpid(), os.getppid())\n")
    server = weir(command=[*weir_command(), "gunicorn", "-c", str(config), "-b", "127.0.0.1:0", "-w", "1", "basic:app"])
    with upgraded(server) as new:
        assert f"pre_exec in {new}, child of {server.pid}" in server.log
        config.write_text("def pre_exec(server): raise RuntimeError('not today')\n")


def test_a_hook_pre_exec_that_fails_keeps_the_old_one(weir: Starter, tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("def pre_exec(server): raise RuntimeError('not today')\n")
    server = weir(command=[*weir_command(), "gunicorn", "-c", str(config), "-b", "127.0.0.1:0", "-w", "1", "basic:app"])
    server.kill(signal.SIGUSR2)
    server.wait_log("ended with exit code 1 before it served; this one goes on")
    assert "RuntimeError: not today" in server.log
    assert server.get("/hello").status == 200


# Plays Gunicorn's part: listens, and starts the command line with the socket when it gets USR2.
GUNICORN = """
import os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
listener = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(listener.fileno(), True)
print(listener.getsockname()[1], flush=True)
signal.sigwait({signal.SIGUSR2})
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
parent = os.getpid()
if os.fork() == 0:
    os.environ.update(GUNICORN_PID=str(parent), GUNICORN_FD=str(listener.fileno()))
    os.execv(sys.argv[1], sys.argv[1:])
signal.pause()
"""


def test_a_running_gunicorn_can_be_replaced(tmp_path: Path) -> None:
    pid_file, log = tmp_path / "weir.pid", tmp_path / "error.log"
    gunicorn = subprocess.Popen(
        [PYTHON, "-c", GUNICORN, *weir_command(), "gunicorn", "-b", "127.0.0.1:1", "-p", str(pid_file),
         "--error-logfile", str(log), "basic:app"], stdout=subprocess.PIPE, text=True, cwd=APPS)
    new = 0
    try:
        assert gunicorn.stdout
        port = int(gunicorn.stdout.readline())
        gunicorn.send_signal(signal.SIGUSR2)
        two = Path(f"{pid_file}.2")
        new = int(wait_for(lambda: two.exists() and two.read_text(), 20))
        with Client(("127.0.0.1", port)) as c:
            assert c.get("/hello").status == 200
        gunicorn.terminate()
        gunicorn.wait()
        wait_for(lambda: pid_file.exists() and pid_file.read_text() == f"{new}\n")
        with Client(("127.0.0.1", port)) as c:
            assert c.get("/hello").status == 200
    finally:
        gunicorn.kill()
        gunicorn.wait()
        if new:
            os.kill(new, signal.SIGTERM)
            wait_for(lambda: not alive(new), 20)


def test_variables_of_a_stranger_have_no_effect(weir: Starter) -> None:
    server = weir("procs:app", env={"WEIR_UPGRADE": "1,3,-1,-1;3o=127.0.0.1:1", "GUNICORN_PID": "1", "GUNICORN_FD": "3"})
    for name in ("WEIR_UPGRADE", "GUNICORN_PID", "GUNICORN_FD"):
        assert server.get(f"/environ/{name}").text == "-"
    broken = weir("procs:app", env={"WEIR_UPGRADE": f"{os.getpid()},3,-1,-1;3o=127.0.0.1:1"}, ready=False)
    broken.expected_status = (1,)
    assert broken.wait_end() == 1
    assert "WEIR_UPGRADE=" in broken.log and "unset it" in broken.log and broken.log.count("\n") == 1
