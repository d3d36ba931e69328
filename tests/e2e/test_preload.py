"""--preload: one process imports the application, and the workers share its memory."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from harness import SANITIZED, Server, Starter, wait_for

APP = """
import os
SELF = os.getpid()
{more}
def app(environ, start):
    body = ("%d %d {text}" % (os.getpid(), SELF)).encode()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def write(folder: Path, more: str = "", text: str = "one") -> None:
    new = folder / "new"
    new.write_text(APP.format(more=more, text=text))
    # Sources of one size and one second look alike to the cache of bytecode.
    new.replace(folder / "preloaded.py")


def serve(weir: Starter, folder: Path, **settings: object) -> Server:
    settings.setdefault("workers", 2)
    return weir("preloaded:app", cwd=folder, preload=True, env={"PYTHONDONTWRITEBYTECODE": "1"}, **settings)


def children(server: Server) -> list[str]:
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()


def pss_kib(pid: int) -> int:
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])  # type: ignore[index]


def test_the_application_is_imported_once_by_a_process_that_does_not_serve(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path, workers=3)
    seen = {tuple(map(int, server.get("/").text.split()[:2])) for _ in range(60)}
    workers, importers = {w for w, _ in seen}, {i for _, i in seen}
    assert workers <= set(server.worker_pids())
    assert importers == {server.template_pid()}
    assert not importers & workers


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps memory of its own for each byte")
def test_workers_share_the_memory_of_the_application(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path, more="MODEL = bytearray(os.urandom(1 << 20) * 60)")
    server = serve(weir, tmp_path, workers=4)
    for _ in range(40):
        server.get("/")
    total = sum(pss_kib(pid) for pid in [server.pid, server.template_pid(), *server.worker_pids()])
    assert total < 1.5 * 60 * 1024 + 40 * 1024


def test_a_reload_imports_the_application_again(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path)
    old = server.template_pid()
    write(tmp_path, text="two")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 2 new workers")
    assert server.get("/").text.endswith("two")
    wait_for(lambda: server.template_pid() not in (0, old), what="another template")


def test_a_reload_that_cannot_import_keeps_the_old_workers(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path)
    workers = server.worker_pids()
    write(tmp_path, more="import nothing_of_this_name")
    server.kill(signal.SIGHUP)
    server.wait_log("not reloaded")
    assert "nothing_of_this_name" in server.log
    wait_for(lambda: server.worker_pids() == workers, what="the old workers alone")
    assert server.get("/").text.endswith("one")
    # And a worker that dies now is replaced by one of the application that works.
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: len(server.worker_pids()) == 2 and workers[0] not in server.worker_pids(), what="a new worker")


def test_an_application_that_cannot_be_imported_ends_the_start_with_4(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path, more="import nothing_of_this_name")
    server = weir("preloaded:app", cwd=tmp_path, preload=True, workers=3, ready=False)
    server.expected_status = (4,)
    assert server.wait_end() == 4
    assert server.log.count("cannot import 'preloaded'") == 1


def test_a_killed_template_is_made_again_when_a_worker_is_needed(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path)
    workers, old = server.worker_pids(), server.template_pid()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: server.template_pid() == 0 and server.worker_pids() == workers, what="the workers alone")
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: server.template_pid() not in (0, old), what="another template")
    wait_for(lambda: len(server.worker_pids()) == 2 and workers[0] not in server.worker_pids(), what="a new worker")


def test_threads_that_the_import_starts_are_warned_about_by_name(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path, more="import threading; threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()")
    server = serve(weir, tmp_path)
    assert re.search(r"WARN\w* preload: .*\(poller\)", server.log)
    assert server.get("/").status == 200


def test_the_template_does_not_outlive_the_supervisor(weir: Starter, tmp_path: Path) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path)
    pids = [server.template_pid(), *server.worker_pids()]
    server.expected_status = (-signal.SIGKILL,)
    server.kill(signal.SIGKILL)
    server.wait_end()

    def gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    wait_for(lambda: all(map(gone, pids)), what="all processes have ended")


@pytest.mark.parametrize("reloads", [2, 4])
def test_many_reloads_while_the_application_is_imported_leave_nothing_behind(
        weir: Starter, tmp_path: Path, reloads: int) -> None:
    write(tmp_path)
    server = serve(weir, tmp_path)
    hold = "import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    write(tmp_path, more=hold, text="two")
    for i in range(reloads):
        server.kill(signal.SIGHUP)
        server.wait_log("INFO reloading", count=i + 1)
        server.wait_for(lambda: len(children(server)) == 2 + 2)  # workers and templates, both old and new
    (tmp_path / "go").touch()
    server.wait_log("reloaded: 2 new workers serve")
    assert server.get("/").text.endswith("two")
    assert server.stop() == 0
