"""What a server's process is beside serving: pid file, background, title, mask, the workers' user."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, Client, Starter, wait_for, weir_command

# The supervisor and its workers, and the only process, have the same duties.
KINDS = pytest.mark.parametrize("workers", [0, 1])


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()


def start(*arguments: str, env: dict[str, str] | None = None, cwd: Path = APPS,
          timeout: float = 20) -> subprocess.CompletedProcess:
    """Run `weir` until what was started ends; output through a pipe that a background process would keep."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WEIR_", "LISTEN_", "PORT"))}
    return subprocess.run([*weir_command(), *arguments], cwd=cwd, env={**environment, **(env or {})}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout * PATIENCE)


# ---- the pid file ----


@KINDS
def test_the_pid_file_is_there_while_the_server_runs(weir: Starter, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "weir.pid"
    server = weir("basic:app", workers=workers, pid_file=path)
    assert path.read_text() == f"{server.pid}\n"
    assert [p.name for p in tmp_path.glob("weir.pid*")] == ["weir.pid"]
    assert server.stop() == 0
    assert not path.exists()


@KINDS
def test_a_second_server_with_the_pid_file_does_not_start(weir: Starter, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "weir.pid"
    server = weir("basic:app", workers=workers, pid_file=path)
    done = start(f"--pid-file={path}", "--bind=127.0.0.1:0", f"--workers={workers}", "basic:app")
    assert done.returncode == 1
    assert done.stderr == (f"weir: pid-file: already running: {path} names the living process {server.pid}; stop "
                           "it, or remove the file if that process is something else\n")
    assert path.read_text() == f"{server.pid}\n"
    assert server.get("/hello").status == 200


@KINDS
def test_a_killed_server_leaves_a_file_that_is_replaced(weir: Starter, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "weir.pid"
    first = weir("basic:app", workers=workers, pid_file=path)
    first.kill(signal.SIGKILL)
    first.expected_status = (first.wait_end(),)
    assert path.read_text() == f"{first.pid}\n"
    second = weir("basic:app", workers=workers, pid_file=path)
    assert path.read_text() == f"{second.pid}\n"


@KINDS
def test_a_start_that_fails_leaves_no_pid_file(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "weir.pid"
    for arguments, text in ((["nosuchmodule:app"], "there is no module 'nosuchmodule'"),
                            (["--bind=127.0.0.1:1", "--bind=127.0.0.1:999999", "basic:app"], "999999")):
        done = start(f"--pid-file={path}", f"--workers={workers}", "--bind=127.0.0.1:0", *arguments)
        assert done.returncode and text in done.stderr
        assert not path.exists()


# ---- the background ----


@contextlib.contextmanager
def daemon(tmp_path: Path, *arguments: str, app: str = "basic:app") -> Iterator[tuple[int, Path]]:
    """A server in the background: its pid, and its socket."""
    path, pid_path = tmp_path / "weir.sock", tmp_path / "weir.pid"
    done = start("--daemon", f"--pid-file={pid_path}", f"--bind=unix:{path}", "--grace=5s", *arguments, app)
    assert done.returncode == 0, done
    pid = int(pid_path.read_text())
    try:
        yield pid, path
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not alive(pid), what="the daemon ends")
        assert not pid_path.exists() and not path.exists()


@pytest.mark.parametrize(("workers", "preload"), [(0, False), (1, False), (2, True)])
def test_a_daemon_serves_when_the_command_returns(tmp_path: Path, workers: int, preload: bool) -> None:
    log = tmp_path / "error.log"
    preloading = ["--preload"] if preload else []
    with daemon(tmp_path, f"--workers={workers}", f"--error-log={log}", *preloading) as (pid, path):
        with Client(str(path)) as c:
            assert c.get("/hello").status == 200
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        parent, group, session, terminal = stat[1:5]
        assert terminal == "0" and int(session) == int(group) != pid, "a session without a terminal and a leader"
        assert int(parent) != os.getpid()
        streams = {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)}
        assert streams == {"/dev/null"}
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == workers + preload
        for child in children:
            assert {os.readlink(f"/proc/{child}/fd/{n}") for n in range(3)} == {"/dev/null"}
    assert "stopped" in log.read_text()


@KINDS
def test_a_daemon_that_cannot_start_says_so_in_the_terminal(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        pid_path = tmp_path / "weir.pid"
        common = ("--daemon", f"--workers={workers}", f"--pid-file={pid_path}")
        done = start(*common, f"--bind={address}", "basic:app")
        assert done.returncode == 1
        assert f"weir: cannot listen on {address}: address already in use" in done.stderr
        done = start(*common, "--bind=127.0.0.1:0", "nosuchmodule:app")
        assert done.returncode == (4 if workers else 1)
        assert "there is no module 'nosuchmodule'" in done.stderr
        (tmp_path / "broken.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
        if not workers:
            done = start(*common, "--bind=127.0.0.1:0", "broken:app", cwd=tmp_path)
            assert done.returncode == 1
            assert "weir: the daemon ended before it was ready" in done.stderr
            pid_path.unlink()  # of a process that was killed
        assert not pid_path.exists()


@KINDS
def test_what_an_application_prints_at_its_start_reaches_the_terminal_of_a_daemon(tmp_path: Path, workers: int) -> None:
    (tmp_path / "talks.py").write_text(
        "print('imported', flush=True)\nfrom basic import app\n")
    path, pid_path = tmp_path / "s", tmp_path / "p"
    done = start("--daemon", f"--workers={workers}", f"--pid-file={pid_path}", f"--bind=unix:{path}",
                 f"--pythonpath={APPS}", "talks:app", cwd=tmp_path)
    pid = int(pid_path.read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alive(pid))
    assert done.returncode == 0 and done.stdout == "imported\n"
    assert "the error log" in done.stderr, "without a file it is told where the error log goes"


# ---- title and mask ----


@KINDS
def test_ps_shows_what_a_process_is(weir: Starter, workers: int) -> None:
    server = weir("basic:app", workers=workers)
    main = "supervisor" if workers else "server"
    wait_for(lambda: command_line(server.pid) == f"weir: {main} [basic:app]", what="the title")
    assert Path(f"/proc/{server.pid}/comm").read_text() == "weir\n"
    named = weir("basic:app", workers=workers, proc_name="shop")
    assert command_line(named.pid) == f"weir: {main} [shop]"
    assert Path(f"/proc/{named.pid}/comm").read_text() == "shop\n"
    for child in Path(f"/proc/{named.pid}/task/{named.pid}/children").read_text().split():
        assert command_line(int(child)) == "weir: worker [shop]"
        assert Path(f"/proc/{child}/comm").read_text() == "shop\n"


@KINDS
def test_the_mask_is_for_log_files_and_the_application(weir: Starter, tmp_path: Path, workers: int) -> None:
    log, access = tmp_path / "error.log", tmp_path / "access.log"
    server = weir("basic:app", workers=workers, umask="027", error_log=log, access_log=access, ready=False)
    wait_for(lambda: log.exists() and "serving" in log.read_text())
    for path in (log, access):
        assert path.stat().st_mode & 0o777 == 0o640
    assert re.search(r"Umask:\s+0027", Path(f"/proc/{server.pid}/status").read_text())


# ---- the workers' user ----

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make workers somebody else's")

WHO = """
import os
from basic import app as basic

def app(environ, start_response):
    if environ["PATH_INFO"] != "/who":
        return basic(environ, start_response)
    regained = []
    for name, number in (("setuid", 0), ("seteuid", 0), ("setgid", 0), ("setegid", 0)):
        try:
            getattr(os, name)(number)
            regained.append(name)
        except PermissionError:
            pass
    body = "%s %s %s %s" % (os.getresuid(), os.getresgid(), os.getgroups(), regained)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, but nobody else write to, as /var/log/weir."""
    with tempfile.TemporaryDirectory(prefix="weir-process-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "who.py").write_text(WHO)
        yield folder


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status_of(pid: int, name: str) -> str:
    return re.search(rf"^{name}:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)[1]  # type: ignore[index]


@as_root
def test_workers_drop_what_the_supervisor_keeps(weir: Starter, open_folder: Path) -> None:
    server = weir("who:app", workers=2, user="nobody", cwd=open_folder, pythonpath=APPS)
    assert server.get("/who").text == "(65534, 65534, 65534) (65534, 65534, 65534) [65534] []"
    assert status_of(server.pid, "Uid").split() == ["0"] * 4
    for pid in workers_of(server.pid):
        assert status_of(pid, "NoNewPrivs") == "1"
        assert int(status_of(pid, "CapEff"), 16) == 0
    other = weir("who:app", workers=1, user="65534", group="daemon", cwd=open_folder, pythonpath=APPS)
    gid = grp.getgrnam("daemon").gr_gid
    assert other.get("/who").text == f"(65534, 65534, 65534) ({gid}, {gid}, {gid}) [{gid}] []"


@as_root
def test_a_template_imports_as_root_and_its_workers_are_not(weir: Starter, open_folder: Path) -> None:
    with open(open_folder / "who.py", "a", encoding="utf-8") as f:
        f.write("\nopen('imported', 'w').write(str(os.geteuid()))\n")
    server = weir("who:app", workers=2, user="nobody", preload=True, cwd=open_folder, pythonpath=APPS)
    assert (open_folder / "imported").read_text() == "0"
    assert server.get("/who").text == "(65534, 65534, 65534) (65534, 65534, 65534) [65534] []"


@as_root
@pytest.mark.parametrize("preload", [False, True])
def test_logs_pid_file_and_socket_of_dropped_workers_work_after_rotation_and_reload(
        weir: Starter, open_folder: Path, preload: bool) -> None:
    socket_path, pid_path = open_folder / "weir.sock", open_folder / "weir.pid"
    logs = [open_folder / "error.log", open_folder / "access.log"]
    server = weir("basic:app", workers=2, user="nobody", bind=f"unix:{socket_path}", pid_file=pid_path,
                  error_log=logs[0], access_log=logs[1], preload=preload, ready=False)

    def get(target: str) -> None:
        with Client(str(socket_path)) as c:
            assert c.get(target).status == 200

    wait_for(lambda: logs[0].exists() and "serving" in logs[0].read_text())
    assert socket_path.owner() == "nobody" and pid_path.owner() == "root"
    get("/token?first")
    wait_for(lambda: "first" in logs[1].read_text())
    assert [path.owner() for path in logs] == ["nobody", "nobody"]
    for path in logs:
        path.rename(path.with_suffix(".1"))
    server.kill(signal.SIGUSR1)  # only root can make files in this folder
    wait_for(lambda: all(path.exists() for path in logs) and logs[0].read_text().count("log files opened again") == 3,
             what="supervisor and both workers log to the new file")
    get("/token?second")
    wait_for(lambda: "second" in logs[1].read_text())
    assert [path.owner() for path in logs] == ["nobody", "nobody"]
    server.kill(signal.SIGHUP)
    wait_for(lambda: "reloaded: 2 new workers serve" in logs[0].read_text())
    get("/token?third")
    wait_for(lambda: "third" in logs[1].read_text())
    assert socket_path.owner() == "nobody"
    assert server.stop() == 0
    assert not socket_path.exists() and not pid_path.exists()


@as_root
def test_initgroups_adds_the_groups_of_the_user(weir: Starter, open_folder: Path) -> None:
    name = next((g.gr_mem[0] for g in grp.getgrall() if g.gr_mem and pwd.getpwnam(g.gr_mem[0]).pw_uid), None)
    if not name:
        pytest.skip("no user but root belongs to a second group")
    user = pwd.getpwnam(name)
    server = weir("who:app", workers=1, user=name, initgroups=True, cwd=open_folder, pythonpath=APPS)
    groups = sorted(os.getgrouplist(name, user.pw_gid))
    assert f" {groups} []" in server.get("/who").text


@as_root
def test_who_may_not_change_the_user_is_told_at_the_start(open_folder: Path) -> None:
    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    for option, text in (("--user=daemon", "user: only root can become 'daemon'"),
                         ("--group=daemon", "group: only root can change to the group"),
                         ("--user=nosuchuser", "user: there is no user 'nosuchuser'")):
        done = subprocess.run([*weir_command(), option, "--bind=127.0.0.1:0", "basic:app"], cwd=APPS, text=True,
                              capture_output=True, preexec_fn=become_nobody, timeout=20 * PATIENCE,
                              env={k: v for k, v in os.environ.items() if not k.startswith("WEIR_")})
        assert done.returncode == 1 and text in done.stderr and done.stderr.count("\n") == 1, done


@as_root
def test_a_user_without_workers_is_refused() -> None:
    done = start("--workers=0", "--user=nobody", "--bind=127.0.0.1:0", "basic:app")
    assert done.returncode == 1
    assert "user and group are for workers" in done.stderr and done.stderr.count("\n") == 1
