"""Every setting of Gunicorn that Weir honours, by what it does to a running server."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import signal
import socket
import ssl
import stat
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from gunicorn_helpers import Gunicorn
from harness import APPS, PYTHON, Client, wait_for
from test_tls import ask, certs  # noqa: F401 (a fixture)


@pytest.fixture
def gunicorn(weir, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Gunicorn(weir, folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def answers(address) -> bool:
    try:
        with Client(address) as c:
            return c.get("/").status == 200
    except OSError:
        return False


# ---- addresses ----


def test_bind_takes_several_addresses_in_gunicorns_forms(gunicorn, tmp_path):
    path, abstract, port = str(tmp_path / "s"), f"weir-test-{os.getpid()}", free_port()
    s = gunicorn("-b", f"unix:{path}", "--bind=unix://" + str(tmp_path / "s2"), "-b", f"tcp://127.0.0.1:{port}",
                 "-b", f"unix:@{abstract}", bind="[::1]:0")
    for address in (path, str(tmp_path / "s2"), ("127.0.0.1", port), b"\0" + abstract.encode(), s.addresses[0]):
        assert answers(address)


def test_bind_takes_a_descriptor(gunicorn):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        gunicorn(bind=f"fd://{fd}", pass_fds=[fd], ready=False)
        wait_for(lambda: answers(("127.0.0.1", listener.getsockname()[1])))


def test_port_of_the_environment_is_the_default_address(gunicorn):
    port = free_port()
    s = gunicorn(bind=None, env={"PORT": str(port)})
    assert s.port == port and s.urls == [f"http://0.0.0.0:{port}"]


def test_sockets_of_systemd_are_used_whatever_is_configured(gunicorn):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        become = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])")
        command = [PYTHON, "-c", become, str(fd), *gunicorn.command(bind="127.0.0.1:1")]
        s = gunicorn.weir(command=command, cwd=gunicorn.folder, pass_fds=[fd])
        s.wait_log("-b has no effect: systemd passed the sockets (LISTEN_FDS)")
        assert answers(("127.0.0.1", listener.getsockname()[1]))


def test_backlog(gunicorn):
    s = gunicorn("--backlog", "7")
    try:
        out = subprocess.run(["ss", "-Hltn", f"sport = :{s.port}"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        pytest.skip("ss is not installed")
    assert out.split()[2] == "7"


@pytest.mark.parametrize("options, mode", [((), 0o777), (("-m", "007"), 0o770), (("--umask", "0o27"), 0o750),
                                           (("-m", "63"), 0o700)])
def test_umask_is_for_unix_sockets(gunicorn, tmp_path, options, mode):
    path = str(tmp_path / "s")
    gunicorn(*options, bind=f"unix:{path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


# ---- workers and threads ----


def test_workers_are_processes(gunicorn):
    s = gunicorn("-w", "3")
    assert len(s.worker_pids()) == 3
    told = s.get("/").json()
    assert told["pid"] in s.worker_pids() and told["ppid"] == s.pid
    assert told["multiprocess"] is True


def test_one_worker_is_a_process_beside_the_supervisor(gunicorn):
    s = gunicorn()
    told = s.get("/").json()
    assert [told["pid"]] == s.worker_pids() and told["ppid"] == s.pid and told["multiprocess"] is False


def test_web_concurrency_is_the_default_of_workers(gunicorn):
    assert len(gunicorn(env={"WEB_CONCURRENCY": "2"}).worker_pids()) == 2


def most_at_once(server, n: int = 6) -> int:
    """How many of n requests that sleep were inside the application together."""
    done = []
    def one() -> None:
        done.append(server.get("/sleep/150").status)
    threads = [threading.Thread(target=one) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert done == [200] * n
    return server.get("/seen").json()["peak"]


@pytest.mark.parametrize("options, most, threads", [
    ((), 1, False), (("--threads", "2"), 2, True), (("-k", "gthread", "--threads", "3"), 3, True),
    (("-k", "gthread"), 1, False), (("-k", "gevent"), 6, True),
    (("-k", "eventlet", "--worker-connections", "20"), 6, True), (("--threads", "2:4"), 4, True)])
def test_threads_are_the_most_requests_at_once(gunicorn, options, most, threads):
    s = gunicorn(*options, app="basic:app")
    assert most_at_once(s) == most
    assert s.get("/env").json()["wsgi.multithread"] is threads


@pytest.mark.parametrize("name, said", [
    ("gevent", "-k: 'gevent' runs on Weir's threads, up to min(worker-connections, 1000) of them"),
    ("gunicorn.workers.ggevent.GeventWorker", "nothing is monkey-patched"),
    ("tornado", "-k: 'tornado' is not used; the application runs on Weir's threads"),
    ("some.module.Worker", "-k: 'some.module.Worker' is not used"),
])
def test_other_worker_classes_say_one_line(gunicorn, name, said):
    s = gunicorn("-k", name)
    assert s.get("/").status == 200
    assert s.log.count(said) == 1


@pytest.mark.parametrize("name", ["sync", "gthread", "gunicorn.workers.sync.SyncWorker",
                                  "gunicorn.workers.gthread.ThreadWorker", "egg:gunicorn#sync"])
def test_worker_classes_that_are_the_same_here_say_nothing(gunicorn, name):
    s = gunicorn("-k", name)
    assert s.get("/").status == 200 and "weir: " not in s.log


def test_worker_connections_bound_those_of_a_worker(gunicorn):
    s = gunicorn("--worker-connections", "2", "--threads", "4", app="basic:app")
    held = [s.client(), s.client()]
    for c in held:
        c.request("GET", "/sleep/1000")  # an idle one would make room
    late = s.client()
    late.request("GET", "/")
    try:
        if not late.quiet(0.3):
            assert late.response().status == 503
            return
    except OSError:
        return
    assert held[0].response().status == 200 and late.response().status == 200


def test_max_requests_replaces_the_worker_without_losing_one(gunicorn):
    s = gunicorn("--max-requests", "20", "--max-requests-jitter", "5")
    seen = set()
    def replaced_twice() -> bool:
        seen.add(s.get("/").json()["pid"])
        return len(seen) == 3
    wait_for(replaced_twice, 30)


def test_keep_alive_closes_idle_connections(gunicorn):
    s = gunicorn("--keep-alive", "1")
    c = s.client()
    assert c.get("/").keep
    begun = time.monotonic()
    assert c.ended() == "closed"
    assert 0.5 < time.monotonic() - begun < 5
    s = gunicorn("--keep-alive", "0")
    assert not s.client().get("/").keep


def test_timeout_is_one_of_a_request_where_workers_have_one_thread(gunicorn):
    s = gunicorn("--timeout", "1")
    begun = time.monotonic()
    assert s.get("/sleep/2500").status == 504
    assert 0.7 < time.monotonic() - begun < 2.4
    wait_for(lambda: s.get("/").status == 200)
    s = gunicorn("--timeout", "1", "--threads", "2")
    assert s.get("/sleep/1500").status == 200
    s = gunicorn("--timeout", "0")
    assert s.get("/sleep/1200").status == 200


def test_a_thread_that_does_not_come_back_costs_its_worker(gunicorn):
    s = gunicorn("--timeout", "1")
    first = s.worker_pid
    assert s.get("/sleep/60000").status == 504
    def another_serves() -> bool:
        try:
            return s.get("/", timeout=1).json()["pid"] != first
        except TimeoutError:  # it waits behind the thread
            return False
    wait_for(another_serves, 20)
    s.expected_status = (0, 1)
    s.stop(signal.SIGQUIT)


def test_graceful_timeout_bounds_the_end(gunicorn):
    s = gunicorn("--graceful-timeout", "1", "--threads", "2", app="basic:app")
    s.expected_status = (0, 1)
    c = s.client()
    c.request("GET", "/sleep/15000")
    wait_for(lambda: s.get("/seen").json().get("sleep"))
    begun = time.monotonic()
    s.stop()
    assert 0.8 < time.monotonic() - begun < 8


# ---- the process ----


@pytest.mark.parametrize("workers", ["1", "0"])
def test_chdir_is_where_the_application_is_imported(gunicorn, workers):
    (gunicorn.folder / "sub").mkdir()
    (gunicorn.folder / "sub" / "near.py").write_text("from process_told import app\n")
    s = gunicorn("--chdir", "sub", "-w", workers, app="near:app")
    told = s.get("/").json()
    assert told["cwd"] == str(gunicorn.folder / "sub") and told["cwd"] in told["path"][:2]
    s.kill(signal.SIGHUP if workers == "1" else signal.SIGUSR1)
    wait_for(lambda: s.log.count("reloaded") or "opened again" in s.log)
    assert s.get("/").json()["cwd"] == str(gunicorn.folder / "sub")


def test_pythonpath_has_several_folders(gunicorn, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in_{name}.py").write_text("from process_told import app\n")
    both = f"{tmp_path / 'one'},../two,{APPS}"
    assert gunicorn("--pythonpath", both, app="in_one:app").get("/").status == 200
    path = gunicorn("--pythonpath", both, app="in_two:app").get("/").json()["path"]
    assert path[:3] == [str(tmp_path / "one"), str(tmp_path / "two"), str(APPS)]


def test_raw_env_is_there_before_the_import(gunicorn):
    s = gunicorn("-e", "GREETING=hello there", "--env", "OTHER=a=b")
    told = s.get("/").json()
    assert told["greeting"] == "hello there" and told["environ"]["OTHER"] == "a=b"


def test_script_name_of_the_environment_is_cut_from_the_path(gunicorn):
    for s in (gunicorn(app="basic:app", env={"SCRIPT_NAME": "/api"}),
              gunicorn("-e", "SCRIPT_NAME=/api", app="basic:app")):
        environ = s.get("/api/env").json()
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/api", "/env")


def test_pid_file_is_there_while_it_runs(gunicorn):
    path = gunicorn.folder / "pid"
    s = gunicorn("-p", "pid")
    assert int(path.read_text()) == s.pid
    s.stop()
    assert not path.exists()


def test_name_is_what_ps_shows(gunicorn):
    s = gunicorn("-n", "shop")
    def titles() -> list[str]:
        return [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in (s.pid, *s.worker_pids())]
    wait_for(lambda: all("shop" in title for title in titles()), what=titles)


def test_daemon_goes_to_the_background(gunicorn):
    path, log, port = gunicorn.folder / "pid", gunicorn.folder / "log", free_port()
    r = gunicorn.run("-D", "-p", str(path), "--log-file", str(log), bind=f"127.0.0.1:{port}")
    assert r.returncode == 0, r.stderr
    pid = int(path.read_text())
    try:
        assert answers(("127.0.0.1", port))
        assert os.getsid(pid) != os.getsid(0) and "serving process_told:app" in log.read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not path.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("options, uid, gid", [
    (("-u", "nobody"), 65534, 65534), (("--user", "65534", "--group", "1"), 65534, 1), (("-g", "daemon"), 0, 1),
    (("-u", "nobody", "--initgroups"), 65534, 65534)])
def test_workers_run_as_this_user_and_group(weir, options, uid, gid):
    with tempfile.TemporaryDirectory(prefix="weir-gunicorn-") as name:
        Path(name).chmod(0o755)  # for everybody to enter
        gunicorn = Gunicorn(weir, Path(name))
        s = gunicorn(*options, bind=f"unix:{name}/s", address=f"{name}/s",
                     conf="def when_ready(server): open('seen', 'w').write(repr((server.cfg.uid, server.cfg.gid)))")
        told = s.get("/").json()
        assert (told["uid"], told["gid"], told["groups"]) == (uid, gid, [gid])
        assert os.stat(f"{name}/s").st_uid == uid
        assert Path(f"/proc/{s.pid}").owner() == "root"
        assert eval((Path(name) / "seen").read_text()) == (uid, gid if "-g" in options or "--group" in options else 0)


def test_reload_starts_again_when_a_file_changes(gunicorn):
    (gunicorn.folder / "site_app.py").write_text("TEXT = b'one'\nopen('data.txt').read()\n"
                                                 "def app(environ, start):\n    start('200 OK', [])\n    return [TEXT]\n")
    (gunicorn.folder / "data.txt").write_text("x")
    s = gunicorn("--reload", "--reload-engine", "poll", "--reload-extra-file", "*.txt", app="site_app:app")
    assert s.get("/").text == "one"
    first = s.worker_pid
    changed = gunicorn.folder / "site_app.py"
    changed.write_text(changed.read_text().replace("one", "two"))
    wait_for(lambda: s.get("/").text == "two" and s.worker_pids() != [first] and len(s.worker_pids()) == 1)
    second = s.worker_pid
    assert second != first
    (gunicorn.folder / "data.txt").write_text("y")
    wait_for(lambda: s.get("/").status == 200 and second not in s.worker_pids())


# ---- TLS ----


def test_certificates(gunicorn, certs):
    s = gunicorn("--certfile", str(certs.path("ec.pem")), "--keyfile", str(certs.path("ec.key")), app="basic:app")
    assert ask(s, certs.context())["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("reqs, who, verdict", [("1", None, "NONE"), ("1", "client", "SUCCESS"), ("2", "client", "SUCCESS"),
                                                ("2", None, ""), ("ssl.CERT_NONE", None, "NONE")])
def test_certificates_of_clients(gunicorn, certs, reqs, who, verdict):
    if who:
        certs.signed("client", "client")
    s = gunicorn("--certfile", str(certs.path("ec.pem")), "--keyfile", str(certs.path("ec.key")),
                 "--ca-certs", str(certs.path("ca.pem")), app="basic:app", conf=f"import ssl\ncert_reqs = {reqs}")
    if verdict == "":
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(s, certs.context(who))
    else:
        assert ask(s, certs.context(who)).get("SSL_CLIENT_VERIFY") == verdict


def test_ciphers(gunicorn, certs):
    s = gunicorn("--certfile", str(certs.path("ec.pem")), "--keyfile", str(certs.path("ec.key")),
                 "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", app="basic:app")
    tls = certs.context(high=ssl.TLSVersion.TLSv1_2)
    with s.client(tls=tls) as c:
        assert c.socket.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


# ---- what the application's files and clients meet ----


def test_preload_imports_the_application_before_the_fork(gunicorn):
    s = gunicorn("--preload", "-w", "2")
    told = [s.get("/").json() for _ in range(4)]
    assert len({t["imported_by"] for t in told}) == 1 and told[0]["imported_by"] != told[0]["pid"]


def test_preload_with_hooks_of_requests(gunicorn):
    s = gunicorn("--preload", "-w", "2", conf="""
        def pre_request(worker, req): worker.log.info("worker %s has %s", worker.pid, req.path)
        def post_worker_init(worker): worker.log.info("worker %s runs %s", worker.pid, worker.wsgi.__name__)
    """)
    pid = s.get("/x").json()["pid"]
    s.wait_log(f"worker {pid} has /x")
    assert f"worker {pid} runs app" in s.log


def test_limits_of_requests(gunicorn):
    s = gunicorn("--limit-request-line", "100", "--limit-request-fields", "5", "--limit-request-field_size", "50")
    with s.client() as c:
        assert c.get("/" + "a" * 80).status == 200
        assert c.get("/", "X: " + "a" * 40).status == 200
    assert s.get("/" + "a" * 100).status == 414
    assert s.get("/", "X: " + "a" * 60).status == 431
    assert s.get("/", *[f"X-{i}: 1" for i in range(5)]).status == 431


def test_fields_of_trusted_front_ends(gunicorn):
    conf = "secure_scheme_headers = {'X-TLS': 'yes'}"
    s = gunicorn("--forwarder-headers", "SCRIPT_NAME,REMOTE_USER", app="basic:app", conf=conf)
    environ = s.get("/a/env", "X-TLS: yes", "SCRIPT_NAME: /a", "REMOTE_USER: me", "X_OTHER: 1").json()
    assert environ["wsgi.url_scheme"] == "https" and environ["SCRIPT_NAME"] == "/a"
    assert environ["HTTP_REMOTE_USER"] == "me" and "HTTP_X_OTHER" not in environ
    assert s.get("/env", "X-Forwarded-Proto: https").json()["wsgi.url_scheme"] == "http"
    s = gunicorn("--forwarded-allow-ips", "10.0.0.0/8", app="basic:app")
    assert s.get("/env", "X-TLS: yes", "REMOTE_USER: me").json()["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize("word, status", [("drop", 200), ("refuse", 400), ("dangerous", 200)])
def test_header_map(gunicorn, word, status):
    s = gunicorn("--header-map", word, app="basic:app")
    r = s.get("/env", "X_Name: 1")
    assert r.status == status
    if status == 200:
        assert r.json().get("HTTP_X_NAME") == ("1" if word == "dangerous" else None)


@pytest.mark.parametrize("options, trusted", [(("--proxy-protocol",), True), (("--proxy-protocol=v1",), True),
                                              (("--proxy-protocol", "v1", "--proxy-allow-from", "10.0.0.1"), False)])
def test_proxy_protocol(gunicorn, options, trusted):
    s = gunicorn(*options, "--threads", "2", app="basic:app")
    x = s.raw(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\nGET /env HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    if trusted:
        assert x.responses[0].json()["REMOTE_ADDR"] == "192.0.2.1"
    else:
        assert x.statuses in ([], [400], [403])
    assert s.get("/env").status == 200  # a connection that does not begin with it


def test_permitted_oddities(gunicorn):
    odd = (b"get / HTTP/1.1\r\nHost: t\r\n\r\n", b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n")
    s = gunicorn()
    assert [s.raw(o, 1).statuses for o in odd] == [[400], [400]]
    s = gunicorn("--permit-unconventional-http-method", "--permit-obsolete-folding")
    assert [s.raw(o, 1).statuses for o in odd] == [[200], [200]]
    s = gunicorn("--permit-unconventional-http-method", "--casefold-http-method", app="basic:app")
    assert s.raw(b"get /env HTTP/1.1\r\nHost: t\r\n\r\n", 1).responses[0].json()["REQUEST_METHOD"] == "GET"


def without_sendfile() -> None:
    """In the process to be: sendfile(2) fails with EIO."""
    number = {"x86_64": 40, "aarch64": 71}[platform.machine()]
    load, jump_equal, give = 0x20, 0x15, 0x06
    program = b"".join(struct.pack("HBBI", *step) for step in (
        (load, 0, 0, 0), (jump_equal, 0, 1, number), (give, 0, 0, 0x00050000 | errno.EIO), (give, 0, 0, 0x7FFF0000)))
    buffer = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privs, set_seccomp, mode_filter = 38, 22, 2
    assert libc.prctl(no_new_privs, 1, 0, 0, 0) == 0
    assert libc.prctl(set_seccomp, mode_filter, filter_, 0, 0) == 0


@pytest.mark.parametrize("options, env, whole", [((), {}, False), (("--no-sendfile",), {}, True),
                                                 ((), {"SENDFILE": "no"}, True), ((), {"SENDFILE": "1"}, False)])
def test_files_are_sent_by_the_kernel_unless_that_is_forbidden(gunicorn, options, env, whole):
    s = gunicorn(*options, env=env, preexec=without_sendfile)
    text = bytes(range(256)) * 2000
    (gunicorn.folder / "file").write_bytes(text)
    x = s.raw(b"GET /file?file HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert [r.body for r in x.responses] == ([text] if whole else [])


# ---- logs ----


def test_access_log_in_gunicorns_format(gunicorn):
    s = gunicorn("--access-logfile", "-")
    s.get("/a?b", "Referer: there", "User-Agent: me")
    s.wait_out('"GET /a?b HTTP/1.1" 200 ')
    assert re.search(r'^127\.0\.0\.1 - - \[.*\] "GET /a\?b HTTP/1\.1" 200 \d+ "there" "me"$', s.out, re.M)
    s = gunicorn("--access-logfile", "access", "--access-logformat", "%(m)s %(U)s %({x-a}i)s %(s)s")
    s.get("/a?b", "X-A: one")
    wait_for(lambda: (gunicorn.folder / "access").read_text() == "GET /a one 200\n")


def test_error_log_and_its_level(gunicorn):
    for option in ("--error-logfile", "--log-file"):
        log = gunicorn.folder / option.strip("-")
        s = gunicorn(option, str(log), "--log-level", "warning", ready=False)
        wait_for(log.exists)
        s.expected_status = (0, -15, 143, 1)
        s.process.terminate()
        s.process.wait()
        assert "INFO" not in log.read_text()


def test_capture_output_leads_prints_to_the_error_log_also_after_rotation(gunicorn):
    log, old = gunicorn.folder / "log", gunicorn.folder / "log.1"
    port = free_port()
    s = gunicorn("--capture-output", "--log-file", str(log), bind=f"127.0.0.1:{port}", ready=False,
                 address=("127.0.0.1", port))
    wait_for(lambda: answers(s.address))
    assert "printed while imported\n" in log.read_text()
    log.rename(old)
    s.kill(signal.SIGUSR1)
    wait_for(log.exists)
    def printed() -> bool:
        s.get("/log/x")
        return "printed for a request\n" in log.read_text()
    wait_for(printed)
    assert s.out == ""


def test_the_logger_gunicorn_error_leads_to_the_error_log(gunicorn):
    s = gunicorn("--log-level", "debug")
    s.get("/log/hello")
    s.wait_log("WARNING the application says hello")
    assert "DEBUG imported" in s.log
    s = gunicorn()
    s.get("/log/hello")
    s.wait_log("WARNING the application says hello")
    assert "imported" not in s.log.replace("printed while imported", "")


LOGGING_INI = """
[loggers]
keys=root, gunicorn.error, gunicorn.access

[handlers]
keys=errors, accesses

[formatters]
keys=errors, accesses

[logger_root]
level=INFO
handlers=errors

[logger_gunicorn.error]
level=INFO
handlers=errors
propagate=0
qualname=gunicorn.error

[logger_gunicorn.access]
level=INFO
handlers=accesses
propagate=0
qualname=gunicorn.access

[handler_errors]
class=FileHandler
formatter=errors
args=('errors.log',)

[handler_accesses]
class=FileHandler
formatter=accesses
args=('accesses.log',)

[formatter_errors]
format=E %(levelname)s %(process)d %(message)s

[formatter_accesses]
format=A %(message)s
"""
LOGGING_DICT = {
    "version": 1,
    "formatters": {"e": {"format": "E %(levelname)s %(process)d %(message)s"}, "a": {"format": "A %(message)s"}},
    "handlers": {"e": {"class": "logging.FileHandler", "filename": "errors.log", "formatter": "e"},
                 "a": {"class": "logging.FileHandler", "filename": "accesses.log", "formatter": "a"}},
    "root": {"handlers": ["e"]},
    "loggers": {"gunicorn.error": {"handlers": ["e"], "level": "INFO", "propagate": False},
                "gunicorn.access": {"handlers": ["a"], "level": "INFO", "propagate": False}},
}


@pytest.mark.parametrize("how", ["ini", "json", "dict"])
def test_configured_logging_gets_weirs_lines_and_the_applications(gunicorn, how):
    conf, options = "", []
    if how == "ini":
        gunicorn.write(LOGGING_INI, "logging.ini")
        options = ["--log-config", "logging.ini"]
    elif how == "json":
        gunicorn.write(json.dumps(LOGGING_DICT), "logging.json")
        options = ["--log-config-json", "logging.json"]
    else:
        conf = f"logconfig_dict = {LOGGING_DICT!r}"
    port = free_port()
    s = gunicorn(*options, conf=conf, bind=f"127.0.0.1:{port}", ready=False, address=("127.0.0.1", port))
    wait_for(lambda: answers(s.address))
    s.get("/log/hello?q")
    errors, accesses = gunicorn.folder / "errors.log", gunicorn.folder / "accesses.log"
    wait_for(lambda: re.search(rf"^E INFO {s.pid} weir .* serving ", text_of(errors), re.M))
    wait_for(lambda: re.search(r"^E WARNING \d+ the application says hello$", text_of(errors), re.M))
    wait_for(lambda: re.search(r'^A 127\.0\.0\.1 - - .*"GET /log/hello\?q HTTP/1\.1" 200', text_of(accesses), re.M))
    s.stop()
    wait_for(lambda: "stopped" in text_of(errors))


def test_configured_logging_is_read_again_on_hup(gunicorn):
    gunicorn.write(f"logconfig_dict = {LOGGING_DICT!r}")
    port = free_port()
    s = gunicorn(bind=f"127.0.0.1:{port}", ready=False, address=("127.0.0.1", port))
    wait_for(lambda: "serving" in text_of(gunicorn.folder / "errors.log"))
    gunicorn.write(f"logconfig_dict = {LOGGING_DICT!r}".replace("errors.log", "other.log"))
    s.kill(signal.SIGHUP)
    other = gunicorn.folder / "other.log"
    def told() -> bool:
        s.get("/log/again")
        return "the application says again" in text_of(other)
    wait_for(told)
    s.stop()
    wait_for(lambda: "stopped" in text_of(other))


def writer_of(server) -> int | None:
    """The process that gives Weir's lines to Python's logging."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in map(int, children):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"weir: logs"):
            return pid
    return None


def test_killing_the_process_that_writes_logs_stops_nothing_else(gunicorn):
    conf = f"logconfig_dict = {LOGGING_DICT!r}"
    port = free_port()
    s = gunicorn(conf=conf, bind=f"127.0.0.1:{port}", ready=False, address=("127.0.0.1", port))
    errors = gunicorn.folder / "errors.log"
    wait_for(lambda: "serving" in text_of(errors))
    os.kill(wait_for(lambda: writer_of(s)), signal.SIGKILL)
    wait_for(lambda: writer_of(s) is None)
    for _ in range(20):
        assert s.get("/log/meanwhile").status == 200
    s.kill(signal.SIGHUP)
    wait_for(lambda: writer_of(s))
    wait_for(lambda: "reloaded" in text_of(errors))
    wait_for(lambda: '"GET /log/meanwhile HTTP/1.1"' in text_of(gunicorn.folder / "accesses.log"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_configured_logging_gets_lines_of_workers_of_another_user(weir):
    with tempfile.TemporaryDirectory(prefix="weir-gunicorn-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the worker can neither make nor open the files
        port = free_port()
        s = Gunicorn(weir, folder)("-u", "nobody", conf=f"logconfig_dict = {LOGGING_DICT!r}",
                                   bind=f"127.0.0.1:{port}", ready=False, address=("127.0.0.1", port))
        errors = folder / "errors.log"
        wait_for(lambda: "serving" in text_of(errors) and answers(s.address))
        assert "what the application logs goes to gunicorn.error" in text_of(errors)
        s.kill(signal.SIGUSR1)
        wait_for(lambda: text_of(errors).count("log files opened again") == 2)
        s.get("/log/hello")
        wait_for(lambda: "the application says hello" in text_of(errors))
        wait_for(lambda: '"GET /log/hello HTTP/1.1"' in text_of(folder / "accesses.log"))
        s.stop()


@pytest.mark.parametrize("what", ["--log-config=none.ini", "--log-config-json=none.json"])
def test_logging_that_cannot_be_configured_ends_the_start(gunicorn, what):
    r = gunicorn.run(what)
    assert r.returncode == 1 and r.stderr.startswith("weir: logconfig") and r.stderr.count("\n") == 1, r.stderr


def datagrams(receiver: socket.socket, enough) -> list[str]:
    """What came, until `enough` of it is there."""
    receiver.settimeout(10)
    got: list[str] = []
    while not enough(got):
        got += receiver.recv(65536).decode().split("\n")
    return got


def test_syslog_gets_both_logs(gunicorn, tmp_path):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        s = gunicorn("--log-syslog", "--log-syslog-to", f"unix://{path}#dgram", "--log-syslog-prefix", "shop",
                     "--log-syslog-facility", "local3")
        s.get("/one")
        got = datagrams(receiver, lambda got: any("GET /one" in line for line in got))
        level_info = 19 << 3 | 6
        assert any(line.startswith(f"<{level_info}>gunicorn.shop.error: ") and "serving" in line for line in got)
        assert any(line.startswith(f"<{level_info}>gunicorn.shop.access: ") for line in got)
        s.stop()


def test_syslog_without_the_access_log(gunicorn):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        s = gunicorn("--log-syslog", f"--log-syslog-to=udp://127.0.0.1:{receiver.getsockname()[1]}",
                     "--disable-redirect-access-to-syslog")
        s.get("/one")
        s.stop()
        got = datagrams(receiver, lambda got: any("stopped" in line for line in got))
        assert not any("GET /one" in line for line in got)


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_statsd_counts_requests(gunicorn, tmp_path, kind):
    receiver = socket.socket(socket.AF_INET if kind == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind(("127.0.0.1", 0) if kind == "udp" else str(tmp_path / "statsd"))
        where = f"127.0.0.1:{receiver.getsockname()[1]}" if kind == "udp" else f"unix://{tmp_path}/statsd"
        s = gunicorn("--statsd-host", where, "--statsd-prefix", "shop", "--dogstatsd-tags", "a:b,c", "-w", "2")
        s.get("/")
        assert s.get("/raise").status == 500
        got = datagrams(receiver, lambda got: sum("requests" in line for line in got) == 2)
        assert "shop.gunicorn.workers:2|g|#a:b,c" in got
        assert "shop.gunicorn.requests:1|c|#a:b,c" in got
        assert "shop.gunicorn.request.status.200:1|c|#a:b,c" in got
        assert "shop.gunicorn.request.status.500:1|c|#a:b,c" in got
        assert any(re.fullmatch(r"shop\.gunicorn\.request\.duration:\d+\.\d+\|ms\|#a:b,c", line) for line in got)


# ---- PasteDeploy ----


def test_paste_loads_the_application_of_an_ini_file(gunicorn):
    """With a stand-in for the package: what is asked of it is what counts."""
    (gunicorn.folder / "paste").mkdir()
    gunicorn.write("", "paste/__init__.py")
    gunicorn.write("""
        import json
        def loadapp(uri, name, global_conf):
            def app(environ, start):
                start("200 OK", [])
                return [json.dumps([uri, name, global_conf]).encode()]
            return app
    """, "paste/deploy.py")
    gunicorn.write("", "site.ini")
    s = gunicorn("--paste", "site.ini#admin", "--paste-global", "A=1", app=None)
    assert s.get("/").json() == [f"config:{gunicorn.folder}/site.ini", "admin", {"A": "1"}]


def test_paste_that_is_not_installed_is_told(gunicorn):
    (gunicorn.folder / "paste").mkdir()
    gunicorn.write("raise ImportError", "paste/__init__.py")
    r = gunicorn.run("--paste", "site.ini", app=None)
    assert r.returncode == 4 and "--paste needs the package PasteDeploy" in r.stderr
