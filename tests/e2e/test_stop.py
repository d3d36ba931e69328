"""Stopping: what runs is finished, nothing new is taken, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, PYTHON, SANITIZED, Client, Incomplete, Server, Starter, wait_for, weir_command

SOON = 3 * PATIENCE


def seen(server: Server) -> dict:
    return server.get("/seen").json()


def refused(server: Server) -> bool:
    try:
        Client(server.address, 2).close()
    except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError):
        return True
    return False


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGTERM, 0), (signal.SIGINT, 0)])
def test_a_stop_finishes_what_runs_and_ends_with_zero(weir: Starter, number: int, workers: int) -> None:
    server = weir("basic:app", threads=8, workers=workers, drain_idle="200ms")
    slow, stream, idle, queued = (server.client() for _ in range(4))
    assert idle.get("/hello").status == 200
    slow.request("GET", "/sleep/1200?slow")
    stream.request("GET", "/ticks/10")
    wait_for(lambda: seen(server).get("sleep") and seen(server).get("ticks"))
    begin = time.monotonic()
    server.kill(number)
    wait_for(lambda: refused(server), 1, "the listener is closed at once")
    assert idle.ended() == "closed"
    assert time.monotonic() - begin < 0.9 * PATIENCE, "the idle connection waited for others"
    r = slow.response()
    assert r.text == "slow" and not r.keep
    assert stream.response().body == b"".join(b"tick %d\n" % i for i in range(10))
    assert slow.ended() == stream.ended() == "closed"
    assert server.wait_end() == 0
    assert "stopped" in server.log


def test_an_idle_server_stops_at_once(weir: Starter) -> None:
    server = weir("basic:app")
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < SOON


def test_idle_connections_do_not_hold_up_the_end(weir: Starter) -> None:
    server = weir("basic:app")
    clients = [server.client() for _ in range(200)]
    for c in clients[:100]:
        assert c.get("/hello").status == 200
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < SOON
    for c in clients:
        assert c.rest() == b""


def test_requests_that_wait_for_a_place_are_answered_too(weir: Starter) -> None:
    server = weir("basic:app", threads=1)
    clients = [server.client() for _ in range(6)]
    for i, c in enumerate(clients):
        c.request("GET", f"/sleep/100?{i}")
    with server.client() as c:
        assert c.get("/-/ping").status == 200  # all of them were read
    server.kill(signal.SIGTERM)
    assert [c.response().text for c in clients] == [str(i) for i in range(6)]
    assert server.wait_end() == 0


def test_a_head_that_has_begun_is_served(weir: Starter) -> None:
    server = weir("basic:app")
    with server.client() as c, server.client() as other:
        assert c.get("/hello").status == 200
        c.send(b"GET /token?half HTTP/1.1\r\nHo")
        other.request("POST", "/echo", "Content-Length: 4")
        other.send(b"ab")
        assert server.get("/-/ping").status == 200
        server.kill(signal.SIGTERM)
        wait_for(lambda: refused(server))
        c.send(b"st: t\r\n\r\n")
        r = c.response()
        assert r.text == "half" and not r.keep
        other.send(b"cd")
        assert other.response().body == b"abcd"
    assert server.wait_end() == 0


def test_no_answer_is_cut_under_load(weir: Starter) -> None:
    server = weir("basic:app", threads="4:32")
    wrong: list[str] = []
    answers = 0
    lock = threading.Lock()

    def client(number: int) -> None:
        nonlocal answers
        n = 0
        while True:
            try:
                with Client(server.address, 10) as c:
                    while True:
                        target = f"/sleep/20?{number}-{n}" if n % 5 == 0 else f"/token?{number}-{n}"
                        c.request("GET", target)
                        if not c.more():
                            return  # closed before an answer: it may be asked again elsewhere
                        r = c.response()
                        with lock:
                            answers += 1
                            if r.text != f"{number}-{n}":
                                wrong.append(f"{r.text} for {number}-{n}")
                        n += 1
                        if not r.keep:
                            break
            except Incomplete as e:
                wrong.append(f"cut: {e} {e.partial}")
                return
            except OSError:
                return

    threads = [threading.Thread(target=client, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    wait_for(lambda: answers > 500)
    assert server.stop() == 0
    for t in threads:
        t.join(20)
    assert not wrong, wrong[:5]


def test_a_second_signal_ends_at_once(weir: Starter) -> None:
    server = weir("basic:app", grace="60s")
    server.expected_status = (1,)
    c = server.client()
    c.request("GET", "/sleep/20000")
    wait_for(lambda: seen(server).get("sleep"))
    server.kill(signal.SIGTERM)
    wait_for(lambda: refused(server))
    assert server.running()
    begin = time.monotonic()
    server.kill(signal.SIGTERM)
    assert server.wait_end() == 1
    assert time.monotonic() - begin < SOON
    with pytest.raises(Incomplete):
        c.response()


def test_the_grace_bounds_the_end(weir: Starter) -> None:
    server = weir("basic:app", grace="500ms")
    server.expected_status = (1,)
    c = server.client()
    c.request("GET", "/sleep/20000")
    wait_for(lambda: seen(server).get("sleep"))
    begin = time.monotonic()
    assert server.stop() == 1
    assert 0.4 < time.monotonic() - begin < 0.5 + SOON
    assert "the grace of 0.5 s is over: 1 connections are cut, 1 requests still run" in server.log


def test_a_stream_ends_with_the_grace_and_is_closed(weir: Starter, tmp_path: Path) -> None:
    """A generator that never ends and a client that never leaves."""
    (tmp_path / "endless.py").write_text(textwrap.dedent("""
        import sys, time
        def app(environ, start):
            def items():
                try:
                    while True:
                        yield b"x"
                        time.sleep(0.01)
                finally:
                    print("generator closed", file=sys.stderr, flush=True)
            start("200 OK", [("Content-Type", "text/plain")])
            return items()
    """))
    server = weir("endless:app", cwd=tmp_path, grace="500ms")
    server.expected_status = (0, 1)
    c = server.client()
    c.request("GET", "/")
    c.head()
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 0.5 + SOON
    assert "generator closed" in server.log
    with pytest.raises(Incomplete):
        while c.chunk():
            pass


def test_a_client_that_asks_whether_it_should_go_on_is_told_when_the_grace_is_over(weir: Starter) -> None:
    server = weir("basic:app", grace="500ms")
    server.expected_status = (0, 1)
    c = server.client()
    c.request("GET", "/watch/long")
    wait_for(lambda: seen(server).get("watch long"))
    begin = time.monotonic()
    server.stop()
    assert time.monotonic() - begin < 0.5 + SOON


def test_a_unix_socket_file_is_removed(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = weir("basic:app", bind=[f"unix:{path}", "127.0.0.1:0"])
    assert path.is_socket()
    assert server.stop() == 0
    assert not path.exists()


def test_nothing_is_left_running(weir: Starter) -> None:
    server = weir("basic:app")
    ask = [server.client() for _ in range(20)]
    for c in ask:
        c.request("GET", "/sleep/50")
    for c in ask:
        c.response()
    worker = server.worker_pid
    assert Path(f"/proc/{worker}/task/{worker}/children").read_text() == ""
    assert server.stop() == 0
    assert not Path(f"/proc/{server.pid}/task").exists() or not server.running()


def test_its_end_frees_the_port_for_the_next_one(weir: Starter) -> None:
    first = weir("basic:app")
    with first.client() as c:
        assert c.get("/hello").status == 200
        port = first.port
        assert first.stop() == 0
        second = weir("basic:app", bind=f"127.0.0.1:{port}")
    assert second.get("/hello").status == 200


@pytest.mark.parametrize("waitress", [False, True])
def test_stop_under_both_command_lines(weir: Starter, waitress: bool) -> None:
    server = weir("basic:app", waitress=waitress)
    c = server.client()
    c.request("GET", "/sleep/400?kept")
    wait_for(lambda: seen(server).get("sleep"))
    server.kill(signal.SIGTERM)
    assert c.response().text == "kept"
    assert server.wait_end() == 0


def test_a_killed_server_leaves_a_socket_file_that_the_next_one_replaces(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = weir("basic:app", bind=f"unix:{path}")
    first.expected_status = (-9,)
    first.kill(signal.SIGKILL)
    first.wait_end()
    assert path.is_socket()
    second = weir("basic:app", bind=f"unix:{path}")
    assert second.get("/hello").status == 200


# ---- serve() inside a program ----


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(APPS)!r})\n" + textwrap.dedent(text))
    return [PYTHON, str(path)]


@pytest.fixture
def package_env() -> dict[str, str]:
    """The environment in which `import weir` finds the build under test."""
    folder = Path(weir_command()[0]).parent / "python"
    if not (folder / "weir").is_dir():
        pytest.skip("the command under test is no build tree")
    env = {"PYTHONPATH": str(folder)}
    if os.environ.get("WEIR_ASAN_RUNTIME"):
        env["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
    runtime = subprocess.run([weir_command()[0], "--version"], capture_output=True, text=True)
    assert runtime.returncode == 0
    return env


def test_serve_finishes_what_runs_on_ctrl_c_and_returns(weir: Starter, tmp_path: Path, package_env) -> None:
    server = weir(command=script(tmp_path, """
        from basic import app
        from weir import serve
        serve(app, host="127.0.0.1", port=0, threads=4)
        print("returned", flush=True)
    """), env=package_env, cwd=tmp_path)
    c = server.client()
    c.request("GET", "/sleep/500?kept")
    wait_for(lambda: seen(server).get("sleep"))
    server.kill(signal.SIGINT)
    assert c.response().text == "kept"
    assert server.wait_end() == 0
    assert server.out == "returned\n"


def test_serve_in_a_thread_of_a_program(weir: Starter, tmp_path: Path, package_env) -> None:
    server = weir(command=script(tmp_path, """
        import signal, threading
        from basic import app
        import weir
        asked = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: asked.set())
        server = weir.create_server(app, listen="127.0.0.1:0")
        thread = threading.Thread(target=server.run)
        thread.start()
        while not asked.wait(0.05):
            pass
        print("the program's own", flush=True)
        server.close()
        thread.join()
        print("joined", flush=True)
    """), env=package_env, cwd=tmp_path)
    assert server.get("/token?hello").text == "hello"
    server.kill(signal.SIGINT)
    assert server.wait_end() == 0
    assert server.out == "the program's own\njoined\n"


def test_a_program_can_serve_twice(weir: Starter, tmp_path: Path, package_env) -> None:
    done = subprocess.run(script(tmp_path, """
        import threading, urllib.request
        from basic import app
        import weir
        for i in range(3):
            server = weir.create_server(app, listen="127.0.0.1:0")
            thread = threading.Thread(target=server.run)
            thread.start()
            url = f"http://127.0.0.1:{server.effective_port}/token?{i}"
            print(urllib.request.urlopen(url, timeout=10).read().decode(), flush=True)
            server.close()
            thread.join(10)
            assert not thread.is_alive()
    """), env={**os.environ, **package_env}, capture_output=True, text=True, timeout=30 * PATIENCE)
    assert done.stdout == "0\n1\n2\n", done.stderr
    assert done.returncode == 0


def test_handlers_of_the_program_stay(weir: Starter, tmp_path: Path, package_env) -> None:
    server = weir(command=script(tmp_path, """
        import signal
        from basic import app
        from weir import serve
        class Stop(Exception):
            pass
        def stop(*_):
            raise Stop
        signal.signal(signal.SIGUSR2, stop)
        try:
            serve(app, host="127.0.0.1", port=0)
        except Stop:
            print("its own handler", flush=True)
    """), env=package_env, cwd=tmp_path)
    assert server.get("/hello").status == 200
    server.kill(signal.SIGUSR2)
    assert server.wait_end() == 0
    assert server.out == "its own handler\n"


def test_what_ends_a_process_of_the_application_does_not_stop_the_server(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(textwrap.dedent("""
        import multiprocessing, subprocess, time
        def app(environ, start):
            if environ["PATH_INFO"] == "/fork":
                child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
                child.start()
                child.terminate()
                child.join(10)
                status = child.exitcode
            else:
                child = subprocess.Popen(["sleep", "60"])
                child.terminate()
                status = child.wait(10)
            start("200 OK", [])
            return [str(status).encode()]
    """))
    server = weir("parent:app", cwd=tmp_path)
    for _ in range(20):
        assert server.get("/fork").text == "-15"
        assert server.get("/exec").text == "-15"
    assert "stop" not in server.log


FORKS = """
import os, signal
def parts():
    yield b"some"
    raise RuntimeError("cut")
def app(environ, start):
    if environ["PATH_INFO"] == "/cut":
        start("200 OK", [])
        return parts()
    if environ["PATH_INFO"] == "/none":
        start("200 OK", [("Content-Length", "0")])
        return []
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    start("200 OK", [("Content-Length", str(len(str(pid))))])
    return [str(pid).encode()]
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_that_the_application_forked_keeps_neither_port_nor_connections(
        weir: Starter, tmp_path: Path, workers: int) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    server = weir("forks:app", cwd=tmp_path, workers=workers, keep_alive="3s")
    idle, cut = server.client(), server.client()
    children = []
    try:
        assert idle.get("/none").status == 200 and cut.get("/none").status == 200
        children.append(int(server.get("/").text))
        cut.request("GET", "/cut", version="HTTP/1.0")
        cut.head()
        while cut.more():
            pass
        assert cut.end == "reset", "a response that is cut does not look complete"
        assert idle.ended() == "closed", "after keep-alive"
        waits = server.client()
        children.append(int(waits.get("/").text))
        assert server.stop() == 0
        assert waits.ended() == "closed", "at the stop"
        socket.create_server(("127.0.0.1", server.port)).close()
        for pid in children:
            os.kill(pid, 0)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


def test_a_signal_of_the_last_run_does_not_stop_the_next(weir: Starter, tmp_path: Path, package_env) -> None:
    server = weir(command=script(tmp_path, """
        from basic import app
        from weir import serve
        serve(app, listen="127.0.0.1:0")
        serve(app, listen="127.0.0.1:0")
    """), env=package_env, cwd=tmp_path)
    with server.client() as c:
        c.request("GET", "/sleep/2000")
        server.wait_for(lambda: server.get("/seen").json().get("sleep") == 1)
        server.kill(signal.SIGTERM)
        server.wait_log("stopping")
        threads = server.threads()
        server.kill(signal.SIGTERM)
        wait_for(lambda: server.threads() < threads, what="it waits a second for the view, and for nothing else")
        server.kill(signal.SIGTERM)
    server.wait_log(re.compile(r"serving .* on http"), count=2)
    server.wait_ready()
    second = server.addresses[-1]
    with server.client(address=second) as c:
        c.request("GET", "/sleep/300")
        assert c.response().body == b"slept\n"
        assert c.alive()


@pytest.mark.skipif(SANITIZED, reason="sanitizers need address space of their own")
def test_a_server_that_could_not_start_gives_everything_back(tmp_path: Path, package_env) -> None:
    done = subprocess.run(script(tmp_path, """
        import os, resource
        from basic import app
        import weir
        def descriptors():
            return len(os.listdir("/proc/self/fd"))
        size = [line for line in open("/proc/self/status") if line.startswith("VmSize")][0].split()[1]
        for _ in range(3):
            server = weir.create_server(app, listen="127.0.0.1:0", thread_stack="64M")
            resource.setrlimit(resource.RLIMIT_AS, (int(size) * 1024 + 100 * 1024 * 1024, -1))
            for _ in range(2):
                try:
                    server.run()
                except (OSError, RuntimeError) as error:
                    print(type(error).__name__, end=" ")
            print(descriptors())
    """), env={**os.environ, **package_env}, capture_output=True, text=True, timeout=30 * PATIENCE)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("OSError RuntimeError "), done.stderr
    assert lines == lines[:1] * 3
    assert done.returncode == 0


def test_a_worker_tells_of_the_processes_that_hold_its_end(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "family.py").write_text(
        "import multiprocessing, time\n"
        "def app(environ, start):\n"
        "    child = multiprocessing.Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n"
        "    start('200 OK', [])\n"
        "    return [b'%d' % child.pid]\n")
    server = weir("family:app", cwd=tmp_path, workers=1, grace="500ms")
    server.expected_status = (0, 1)
    child = int(server.get("/").text)
    try:
        server.kill(signal.SIGTERM)
        server.wait_log(f"waits for processes of multiprocessing that it has started ({child})")
        server.wait_end()
    finally:
        os.kill(child, signal.SIGKILL)
