"""Signals of the supervisor, with Gunicorn's meaning, and those that a worker gets itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from harness import APPS, PATIENCE, SANITIZED, Client, Incomplete, Server, Starter, wait_for
from test_workers import alive, pids_seen, serving

SOON = 1.5 * PATIENCE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the application, whose version a test can change."""
    (tmp_path / "procs.py").write_text((APPS / "procs.py").read_text())
    (tmp_path / "version").write_text("one")
    return tmp_path


def versions(server: Server) -> set[str]:
    return {server.get("/version").text for _ in range(20)}


def refused(server: Server) -> bool:
    try:
        Client(server.address, 2).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


# ---- HUP ----


def test_a_reload_starts_workers_with_the_changed_code(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, workers=3)
    old = set(server.worker_pids())
    (folder / "version").write_text("two")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 3 new workers serve")
    new = serving(server, 3)
    assert not new & old and versions(server) == {"two"}
    assert server.log.count(" serving ") == 1, "the ready line is said once"


def test_a_reload_loses_no_request(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, workers=2, threads=4)
    stop = threading.Event()
    wrong: list[str] = []
    done = 0
    lock = threading.Lock()

    def ask() -> None:
        nonlocal done
        with Client(server.address, 10) as c:
            n = 0
            while not stop.is_set():
                n += 1
                c.request("POST" if n % 3 == 0 else "GET", "/version", body=b"x" * 10 if n % 3 == 0 else None)
                try:
                    r = c.response()
                except (Incomplete, OSError) as e:
                    wrong.append(f"request {n}: {e!r}")
                    return
                if r.status != 200 or not r.keep:
                    wrong.append(f"request {n}: {r.status} keep={r.keep}")
                    return
                with lock:
                    done += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for i in range(3):
        before = done
        wait_for(lambda at_least=before + 200: done > at_least)
        server.kill(signal.SIGHUP)
        server.wait_log("reloaded: 2 new workers serve", count=i + 1)
    before = done
    wait_for(lambda: done > before + 200)
    stop.set()
    for t in threads:
        t.join(20)
    assert not wrong, wrong[:5]


def test_a_reload_finishes_what_runs(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder)
    old = server.worker_pid
    c = server.client()
    c.request("GET", "/sleep/1500")
    server.wait_log("asleep")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    assert int(server.get("/pid").text) != old
    assert c.response().text == str(old)
    wait_for(lambda: not alive(old))


def test_a_reload_hands_over_to_workers_that_are_full_of_idle_connections(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, connections=3)
    old = server.worker_pid
    c = server.client()
    c.request("GET", "/sleep/1500")
    server.wait_log("asleep")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    for idle in [server.client() for _ in range(3)]:
        assert idle.get("/pid").text != str(old)
    assert c.response().text == str(old)
    assert c.get("/pid").text != str(old)
    assert "cannot accept" not in server.log


def test_a_reload_with_an_application_that_fails_keeps_the_old_workers(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, workers=2)
    old = set(server.worker_pids())
    (folder / "version").write_text("broken")
    server.kill(signal.SIGHUP)
    server.wait_log("not reloaded: a new worker could not start; the old workers go on")
    assert serving(server, 2) == old
    assert server.log.count("this version cannot be imported\n") == 2  # the line, and its traceback
    assert versions(server) == {"one"}
    # And the next one, which is right, succeeds.
    (folder / "version").write_text("two")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 2 new workers serve")
    assert not serving(server, 2) & old and versions(server) == {"two"}


@pytest.mark.parametrize("preload", [False, True])
def test_while_a_reload_hangs_a_worker_that_dies_is_replaced_as_it_was(weir: Starter, tmp_path: Path,
                                                                       preload: bool) -> None:
    (tmp_path / "procs.py").write_text((APPS / "procs.py").read_text())
    (tmp_path / "weir.yaml").write_text("workers: 2\nenv:\n  VERSION: one\n")
    server = weir("procs:app", cwd=tmp_path, preload=preload)
    old = set(server.worker_pids())
    (tmp_path / "weir.yaml").write_text("workers: 3\nenv:\n  VERSION: held\n")  # until there is a file `go`
    server.kill(signal.SIGHUP)
    server.wait_log("3 workers (before: 2)")
    os.kill(min(old), signal.SIGKILL)
    server.wait_log("starting another")
    wait_for(lambda: len(pids_seen(server) - old) == 1)
    assert versions(server) == {"one"}
    (tmp_path / "go").touch()
    server.wait_log("reloaded: 3 new workers serve")
    wait_for(lambda: versions(server) == {"held"})
    assert not serving(server, 3) & old


def test_a_reload_that_hangs_ends_after_boot_timeout(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, workers=2, boot_timeout="2s")
    old = set(server.worker_pids())
    (folder / "version").write_text("held")
    server.kill(signal.SIGHUP)
    server.wait_log("does not serve 2 s after its start (boot-timeout): ending it")
    server.wait_log("not reloaded: a new worker could not start; the old workers go on")
    assert serving(server, 2) == old


def test_a_reload_with_a_wrong_configuration_keeps_everything(weir: Starter, folder: Path) -> None:
    (folder / "weir.yaml").write_text("workers: 2\n")
    server = weir("procs:app", cwd=folder)
    old = set(server.worker_pids())
    (folder / "weir.yaml").write_text("workers: many\n")
    server.kill(signal.SIGHUP)
    server.wait_log(re.compile(r"ERROR not reloaded: weir.yaml:1: .*many.*; all goes on as before\n"))
    assert serving(server, 2) == old


def test_a_reload_reads_the_configuration_and_the_environment_again(weir: Starter, folder: Path) -> None:
    (folder / "weir.yaml").write_text("workers: 1\nenv-file: [vars]\n")
    (folder / "vars").write_text("COLOUR=red\n")
    server = weir("procs:app", cwd=folder)
    assert server.get("/environ/COLOUR").text == "red"
    (folder / "weir.yaml").write_text("workers: 3\nenv-file: [vars]\n")
    (folder / "vars").write_text("SHAPE=round\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 3 new workers serve")
    assert len(serving(server, 3)) == 3
    assert server.get("/environ/SHAPE").text == "round"
    assert server.get("/environ/COLOUR").text == "-"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_reload_moves_to_other_addresses_and_keeps_those_that_stay(weir: Starter, folder: Path) -> None:
    stays, goes, comes = free_port(), folder / "old.sock", folder / "new.sock"
    (folder / "weir.yaml").write_text(f"bind: ['127.0.0.1:{stays}', 'unix:{goes}']\n")
    server = weir("procs:app", cwd=folder, bind=None)
    before = server.client(address=("127.0.0.1", stays))
    assert before.get("/pid").status == 200
    (folder / "weir.yaml").write_text(f"bind: ['127.0.0.1:{stays}', 'unix:{comes}']\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    for address in (str(comes), ("127.0.0.1", stays)):
        with server.client(address=address) as c:
            assert c.get("/pid").status == 200
    assert not goes.exists()
    assert before.get("/pid").status == 200


def test_a_reload_opens_all_addresses_of_a_port_beside_the_one_that_goes(weir: Starter, folder: Path) -> None:
    port = free_port()
    (folder / "weir.yaml").write_text(f"workers: 2\nbind: 127.0.0.1:{port}\n")
    server = weir("procs:app", cwd=folder, bind=None)
    before = server.client(address=("127.0.0.1", port))
    assert before.get("/pid").status == 200
    (folder / "weir.yaml").write_text(f"workers: 2\nbind: 0.0.0.0:{port}\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    for host in ("127.0.0.2", "127.0.0.1"):
        with server.client(address=(host, port)) as c:
            assert c.get("/pid").status == 200
    assert before.get("/pid").status == 200
    # The same address, written in another way, is no other one.
    (folder / "weir.yaml").write_text(f"workers: 2\nbind: http://0.0.0.0:{port}\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded", count=2)
    assert before.get("/pid").status == 200


def test_a_reload_says_why_one_address_cannot_take_the_place_of_all(weir: Starter, folder: Path) -> None:
    port = free_port()
    (folder / "weir.yaml").write_text(f"bind: 0.0.0.0:{port}\n")
    server = weir("procs:app", cwd=folder, bind=None)
    (folder / "weir.yaml").write_text(f"bind: 127.0.0.1:{port}\n")
    server.kill(signal.SIGHUP)
    server.wait_log(f"not reloaded: cannot listen on 127.0.0.1:{port} beside 0.0.0.0:{port}, which is open until the "
                    "reload is over; reload with another port first, or restart; all goes on as before")
    with server.client(address=("127.0.0.1", port)) as c:
        assert c.get("/pid").status == 200


def test_a_reload_changes_the_backlog_and_the_mode_of_sockets(weir: Starter, folder: Path) -> None:
    port, path = free_port(), folder / "a.sock"
    text = f"bind: ['127.0.0.1:{port}', 'unix:{path}']\n"
    (folder / "weir.yaml").write_text(text + "backlog: 7\nunix-socket-perms: 600\n")
    server = weir("procs:app", cwd=folder, bind=None)

    def backlog() -> str:
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
        return shown.split()[2]

    inode = path.stat().st_ino
    assert (backlog(), path.stat().st_mode & 0o777) == ("7", 0o600)
    (folder / "weir.yaml").write_text(text + "backlog: 9\nunix-socket-perms: 666\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    wait_for(lambda: (backlog(), path.stat().st_mode & 0o777) == ("9", 0o666))
    assert path.stat().st_ino == inode


def test_connections_that_wait_at_an_address_that_goes_are_answered(weir: Starter, folder: Path) -> None:
    goes, stays = free_port(), free_port()
    (folder / "weir.yaml").write_text(f"threads: 1\nbind: ['127.0.0.1:{goes}', '127.0.0.1:{stays}']\n")
    server = weir("procs:app", cwd=folder, bind=None)
    (folder / "version").write_text("held")
    (folder / "weir.yaml").write_text(f"threads: 1\nbind: 127.0.0.1:{stays}\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloading")
    os.kill(server.worker_pids()[0], signal.SIGSTOP)  # so that they wait
    waiting = [server.client(address=("127.0.0.1", goes)) for _ in range(3)]
    for c in waiting:
        c.request("GET", "/version")
    (folder / "go").touch()
    server.wait_log("reloaded")
    os.kill(server.worker_pids()[0], signal.SIGCONT)
    assert all(c.response().status == 200 for c in waiting)


def test_a_reload_to_an_address_that_cannot_be_opened_keeps_the_old_ones(weir: Starter, folder: Path) -> None:
    (folder / "weir.yaml").write_text(f"bind: 127.0.0.1:{free_port()}\n")
    server = weir("procs:app", cwd=folder, bind=None)
    old = server.worker_pid
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (folder / "weir.yaml").write_text(f"bind: 127.0.0.1:{taken.getsockname()[1]}\n")
        server.kill(signal.SIGHUP)
        server.wait_log(re.compile(r"ERROR not reloaded: cannot listen on .*already in use"))
    assert int(server.get("/pid").text) == old


def test_many_hangups_at_once_end_in_one_new_generation(weir: Starter, folder: Path) -> None:
    server = weir("procs:app", cwd=folder, workers=2)
    old = set(server.worker_pids())
    for _ in range(5):
        server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 2 new workers serve")
    wait_for(lambda: len(server.worker_pids()) == 2)
    assert not serving(server, 2) & old


@pytest.mark.parametrize("wrong", ["workers: many", "bind: 127.0.0.1:{taken}", "error-log: /nonexistent/log"])
def test_a_wrong_configuration_ends_a_reload_that_is_not_over(weir: Starter, folder: Path, wrong: str) -> None:
    settings = folder / "weir.yaml"
    settings.write_text("workers: 2\nbind: 127.0.0.1:0\nenv: {MARK: one}\n")
    server = weir("procs:app", cwd=folder, bind=None)
    old = set(server.worker_pids())
    (folder / "version").write_text("held")
    settings.write_text("workers: 3\nbind: 127.0.0.1:0\nenv: {MARK: two}\n")
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.worker_pids()) == 5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.write_text(wrong.format(taken=taken.getsockname()[1]) + "\nenv: {MARK: three}\n")
        server.kill(signal.SIGHUP)
        server.wait_log(re.compile("ERROR not reloaded: .*all goes on as before"))
    (folder / "go").touch()
    wait_for(lambda: set(server.worker_pids()) == old)
    os.kill(min(old), signal.SIGKILL)
    wait_for(lambda: len(set(server.worker_pids()) - old) == 1)
    serving(server, 2)
    assert {server.get("/environ/MARK").text for _ in range(20)} == {"one"}


@pytest.mark.parametrize("unix", [False, True])
def test_a_reload_with_the_new_address_of_one_that_is_not_over_moves_there(
        weir: Starter, folder: Path, unix: bool) -> None:
    (folder / "weir.yaml").write_text("bind: 127.0.0.1:0\n")
    server = weir("procs:app", cwd=folder, bind=None)
    port, path = free_port(), folder / "new.sock"
    (folder / "version").write_text("held")
    (folder / "weir.yaml").write_text(f"bind: unix:{path}\n" if unix else f"bind: 127.0.0.1:{port}\n")
    server.kill(signal.SIGHUP)
    wait_for(lambda: len(server.worker_pids()) == 2)
    server.kill(signal.SIGHUP)
    server.wait_log("INFO reloading", count=2)
    (folder / "go").touch()
    server.wait_log("reloaded: 1 new workers serve")
    assert server.client(address=str(path) if unix else ("127.0.0.1", port)).get("/version").text == "held"
    wait_for(lambda: refused(server))
    assert server.stop() == 0 and not path.exists()


def test_the_folder_behind_a_moved_link_is_the_new_one(weir: Starter, tmp_path: Path) -> None:
    """How many deploy: the service starts in a link, which is moved to the new release."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "procs.py").write_text((APPS / "procs.py").read_text())
        (tmp_path / name / "version").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("one")
    server = weir("procs:app", cwd=link, env={"PWD": str(link)})
    assert versions(server) == {"one"}
    link.unlink()
    link.symlink_to("two")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    wait_for(lambda: versions(server) == {"two"})


# ---- TTIN, TTOU ----


def test_ttin_and_ttou_change_the_number_of_workers(weir: Starter) -> None:
    server = weir("procs:app")
    first = server.worker_pid
    for n in (2, 3):
        server.kill(signal.SIGTTIN)
        server.wait_log(f"{n} workers (before: {n - 1})")
        assert first in serving(server, n)
    server.kill(signal.SIGTTOU)
    assert first not in serving(server, 2), "the oldest goes first"
    for _ in range(3):
        server.kill(signal.SIGTTOU)
    server.wait_log("1 workers (before: 2)")
    assert len(serving(server, 1)) == 1, "one stays"


def test_a_terminal_that_changes_its_size_stops_nothing(weir: Starter) -> None:
    server = weir("procs:app")
    worker = server.worker_pid
    for pid in (server.pid, worker):
        os.kill(pid, signal.SIGWINCH)
    assert serving(server, 1) == {worker}


# ---- USR1 ----


def test_usr1_opens_the_logs_of_all_workers_again(weir: Starter, tmp_path: Path) -> None:
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    server = weir("procs:app", workers=2, access_log=access, error_log=errors, ready=False)
    wait_for(lambda: errors.exists() and " serving " in errors.read_text())
    server.log_path = errors
    server.wait_ready()
    access.rename(tmp_path / "access.1")
    errors.rename(tmp_path / "error.1")
    server.kill(signal.SIGUSR1)
    server.wait_log("log files opened again", count=3)  # the supervisor's line and each worker's
    serving(server, 2)
    asked = 40
    wait_for(lambda: access.read_text().count("GET /pid") >= asked)
    assert not (tmp_path / "access.1").read_text()


# ---- the end ----


def test_term_finishes_what_runs_in_every_worker(weir: Starter) -> None:
    server = weir("procs:app", workers=2, threads=1, drain_idle="100ms")
    clients = []
    for _ in range(2):
        clients.append(server.client())
        clients[-1].request("GET", "/sleep/1000")
        server.wait_log("asleep", count=len(clients))
    server.kill(signal.SIGTERM)
    wait_for(lambda: refused(server), 1)
    assert len({c.response().text for c in clients}) == 2
    assert server.wait_end() == 0


def test_a_second_term_waits_two_seconds_longer(weir: Starter) -> None:
    server = weir("procs:app", grace="60s")
    server.expected_status = (1,)
    short, endless = server.client(), server.client()
    short.request("GET", "/sleep/1200")
    endless.request("GET", "/sleep/60000")
    server.wait_log("asleep", count=2)
    server.kill(signal.SIGTERM)
    server.wait_log("stopping 1 workers")
    begin = time.monotonic()
    server.kill(signal.SIGTERM)
    assert short.response().status == 200
    assert server.wait_end() == 1
    assert 1.9 < time.monotonic() - begin < 3 * PATIENCE
    with pytest.raises(Incomplete):
        endless.response()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_end_at_once(weir: Starter, number: int) -> None:
    server = weir("procs:app", workers=2)
    server.expected_status = (1,)
    c = server.client()
    c.request("GET", "/sleep/60000")
    server.wait_log("asleep")
    begin = time.monotonic()
    server.kill(number)
    assert server.wait_end() == 1
    assert time.monotonic() - begin < SOON
    with pytest.raises(Incomplete):
        c.response()


def test_int_after_term_does_not_wait(weir: Starter) -> None:
    server = weir("procs:app", grace="60s")
    server.expected_status = (1,)
    c = server.client()
    c.request("GET", "/sleep/60000")
    server.wait_log("asleep")
    server.kill(signal.SIGTERM)
    server.wait_log("stopping 1 workers")
    begin = time.monotonic()
    server.kill(signal.SIGINT)
    assert server.wait_end() == 1
    assert time.monotonic() - begin < SOON


def test_a_worker_that_does_not_end_is_killed_after_the_grace(weir: Starter) -> None:
    server = weir("procs:app", grace="500ms")
    server.expected_status = (1,)
    worker = server.worker_pid
    os.kill(worker, signal.SIGSTOP)
    begin = time.monotonic()
    assert server.stop() == 1
    assert 1.4 < time.monotonic() - begin < 3 * PATIENCE
    assert f"worker {worker} does not end; killing it" in server.log


def test_int_for_the_whole_group_ends_without_a_traceback(weir: Starter) -> None:
    """Ctrl-C on a terminal reaches every process."""
    server = weir("procs:app", workers=2, preexec=os.setsid)
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait_end() == 0
    assert "Traceback" not in server.log


def test_int_while_it_starts_ends_without_a_traceback(weir: Starter) -> None:
    server = weir("procs:app", env={"VERSION": "slow"}, workers=2, preexec=os.setsid, ready=False)
    wait_for(lambda: len(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()) == 2)
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait_end() == 0
    assert server.log == ""


# ---- before the server runs ----


def just_begun(weir: Starter, app: str = "procs:app", **settings: Any) -> Server:
    """Python has only been executed: nothing of the package is imported."""
    server = weir(app, ready=False, **settings)
    wait_for(lambda: b"python" in Path(f"/proc/{server.pid}/cmdline").read_bytes().partition(b"\0")[0])
    return server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_has_only_begun_ends_in_order(weir: Starter, workers: int, number: int) -> None:
    server = just_begun(weir, workers=workers)
    server.kill(number)
    assert server.wait_end() == 0
    assert server.log == ""


def test_a_hangup_of_a_server_that_has_only_begun_reloads_it_later(weir: Starter, folder: Path) -> None:
    server = just_begun(weir, cwd=folder, workers=2)
    server.kill(signal.SIGHUP)
    server.wait_log("HUP: reloading once the server has started")
    server.wait_log("reloaded: 2 new workers serve")


def test_a_hangup_of_the_only_process_is_nothing_before_its_application(weir: Starter) -> None:
    server = just_begun(weir, workers=0)
    server.kill(signal.SIGHUP)
    server.wait_ready()
    assert server.get("/pid").text == str(server.pid)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_an_application_starts_has_no_signal_blocked(weir: Starter, workers: int) -> None:
    server = weir("procs:app", workers=workers)
    fields = dict(line.split(":\t") for line in server.get("/child").text.splitlines())
    own = 0x4E0 if SANITIZED else 0  # ABRT, BUS, FPE and SEGV: the sanitizer's own
    assert int(fields["SigBlk"], 16) == 0 and int(fields["SigCgt"], 16) & ~own == 0
