"""The command line as a user meets it: real processes, what they print, how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, PYTHON, ROOT, Client, weir_command


def run(*arguments, cwd=APPS, env=None, timeout=20, command=None):
    """A process that ends by itself; its environment has nothing of the caller's settings."""
    environment = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("WEIR_", "LISTEN_", "PORT", "VIRTUAL_ENV"))
    }
    environment.update(env or {})
    if os.environ.get("WEIR_ASAN_RUNTIME") and "PYTHONPATH" in (env or {}):
        environment["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
    return subprocess.run(
        [*(command or weir_command()), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
    )


def as_module():
    """`python3 -m weir` of the same build, without the native executable."""
    package = Path(weir_command()[0]).parent / "python"
    if not (package / "weir").is_dir():
        pytest.skip("the command under test is no build tree")
    return [PYTHON, "-m", "weir"], {"PYTHONPATH": str(package)}


# ---- what is answered without an application ----


def test_help_fits_a_screen():
    r = run("--help")
    assert r.returncode == 0 and r.stderr == ""
    lines = r.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert "--bind" in r.stdout and "--threads" in r.stdout and "--help-all" in r.stdout


def test_long_help_tells_unit_default_and_variable():
    r = run("--help-all")
    assert r.returncode == 0
    assert re.search(r"--max-body-size SIZE\n.*\n\s+default 64M, range 0 to 1T; WEIR_MAX_BODY_SIZE", r.stdout)


def test_version_is_one_line():
    for option in ("--version", "-V"):
        r = run(option)
        assert r.returncode == 0 and re.fullmatch(r"weir \d+\.\d+\.\d+\n", r.stdout)


def test_unknown_option_names_the_nearest_in_one_line():
    r = run("--thredas", "4", "basic:app")
    assert (r.returncode, r.stdout) == (2, "")
    assert r.stderr == "weir: --thredas: unknown option; did you mean --threads?\n"


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "no application given; write weir MODULE:ATTRIBUTE"),
        (["a:b", "c:d"], "two applications given, 'a:b' and 'c:d'"),
        (["--threads", "x", "a:b"], "--threads: 'x' is not a number; give N, MIN:MAX or auto"),
        (["--threads", "0", "a:b"], "0 is too small; the range is 1 to 4096"),
        (["--backlog", "99999999999999999999", "a:b"], "too large; the range is 1 to 65535"),
        (["--bind", "::1:80", "a:b"], "put an IPv6 address in brackets"),
        (["--bind", "http://x:1", "a:b"], "is a URL"),
        (["--bind"], "--bind needs a value"),
        (["--env-file", "/nonexistent", "a:b"], "cannot read '/nonexistent': No such file"),
        (["--chdir", "/nonexistent", "a:b"], "--chdir: '/nonexistent': No such file"),
        (["--log-level", "loud", "a:b"], "give one of debug|info|warning|error|critical"),
        (["api/index.py"], "name the module and the application in it, as api.index:app"),
        (["--trusted-proxy-count", "2", "a:b"], "has no meaning without trusted-proxy"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, text):
    r = run(*arguments)
    assert r.returncode == 2 and r.stdout == ""
    assert r.stderr.startswith("weir: ") and r.stderr.count("\n") == 1
    assert text in r.stderr


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--bogus", "a:b"], "Error: option --bogus not recognized"),
        (["--thraeds=4", "a:b"], "did you mean --threads?"),
        ([], "Specify one application"),
        (["a:b", "c:d"], "Specify one application only"),
        (["--trusted-p=1", "a:b"], "not a unique prefix"),
        (["--threads"], "requires argument"),
        (["--listen=:1", "--port=2", "a:b"], "may not be set if listen is set"),
        (["--unix-socket=/x", "--host=h", "a:b"], "unix_socket may not be set if host or port is set"),
        (["--trusted-proxy-count=2", "a:b"], "has no meaning without trusted-proxy"),
    ],
)
def test_wrong_usage_of_waitress_serve_shows_the_usage_and_exits_1(arguments, text):
    r = run("waitress-serve", *arguments)
    assert r.returncode == 1 and r.stdout == ""
    assert text in r.stderr and "Usage: weir waitress-serve" in r.stderr


def test_help_of_waitress_serve_lists_its_options():
    r = run("waitress-serve", "--help")
    assert r.returncode == 0 and r.stderr == ""
    for option in ("--listen", "--threads", "--channel-timeout", "--[no-]expose-tracebacks", "--call"):
        assert option in r.stdout


def test_python_module_answers_the_same():
    command, env = as_module()
    for arguments in (["--help"], ["--version"], ["--thredas", "4"], ["waitress-serve", "--bogus"], []):
        ours, theirs = run(*arguments), run(*arguments, command=command, env=env)
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            theirs.returncode,
            theirs.stdout,
            theirs.stderr,
        )


# ---- settings and their sources ----


def printed(*arguments, env=None, cwd=APPS):
    r = run("--print-config", *arguments, env=env, cwd=cwd)
    assert r.returncode == 0, r.stderr
    found = {}
    for line in r.stdout.splitlines():
        name, _, rest = line.partition(" = ")
        value, _, source = rest.rpartition("# ")
        found[name] = (value.strip(), source)
    return found


def test_printed_configuration_names_value_and_source(tmp_path):
    (tmp_path / ".env").write_text("WEIR_BACKLOG=9\nWEIR_GRACE=3\n")
    found = printed(
        "--env-file", ".env", "-t", "2:8", env={"WEIR_GRACE": "5m", "PORT": "81"}, cwd=tmp_path
    )
    assert found["threads"] == ("2:8", "-t")
    assert found["grace"] == ("5m", "WEIR_GRACE")
    assert found["backlog"] == ("9", ".env:1: WEIR_BACKLOG")
    assert found["bind"] == ("0.0.0.0:81", "PORT")
    assert found["keep-alive"] == ("75s", "default")


def test_default_address_is_loopback():
    assert printed()["bind"] == ("127.0.0.1:8000", "default")


def test_bad_port_in_the_environment_is_refused():
    r = run("basic:app", env={"PORT": "many"})
    assert r.returncode == 2 and "PORT: 'many' is not a port" in r.stderr


def test_bad_line_of_an_environment_file_is_named(tmp_path):
    (tmp_path / ".env").write_text("A=1\nnonsense\n")
    r = run("--env-file", ".env", "a:b", cwd=tmp_path)
    assert (r.returncode, r.stderr) == (2, "weir: .env:2: this is not NAME=VALUE\n")


def test_references_are_those_of_the_documentation():
    for which, name in (("settings", "settings.md"), ("waitress", "waitress-options.md")):
        text = (ROOT / "docs/reference" / name).read_text()
        assert run("--dump-reference", which).stdout == text, f"docs/reference/{name} is out of date"


# ---- starts ----

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get("GREETING", "hello").encode()]

def create_app():
    return app
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "greet.py").write_text(APP)
    return tmp_path / "site"


def test_checked_configuration_is_said_to_be_fine(folder):
    r = run("--check-config", "greet:app", cwd=folder)
    assert r.returncode == 0 and "greet:app can be imported" in r.stdout
    r = run("--check-config", "greet:missing", cwd=folder)
    assert r.returncode == 1


def test_ready_line_names_application_address_and_threads(weir, folder):
    s = weir("greet:app", cwd=folder, threads="2:9")
    assert re.search(
        rf"weir \d+\.\d+\.\d+ serving greet:app on http://127\.0\.0\.1:{s.port} \(workers 1, threads 2:9, pid {s.pid}\)",
        s.log,
    )
    assert s.get("/").body == b"hello"


def test_process_is_python_itself_and_ends_with_zero(weir, folder):
    """The native executable becomes Python: no process in between that could lose a signal."""
    s = weir("greet:app", cwd=folder)
    assert "python" in os.readlink(f"/proc/{s.pid}/exe")
    assert s.stop(signal.SIGTERM) == 0


def test_module_alone_serves_its_app(weir, folder):
    assert weir("greet", cwd=folder).get("/").body == b"hello"


def test_factory_is_called(weir, folder):
    assert weir("greet:create_app", cwd=folder, factory=True).get("/").body == b"hello"


def test_waitress_serve_calls_with_call_and_tells_its_address(weir, folder):
    s = weir("greet:create_app", "--call", waitress=True, cwd=folder)
    assert s.get("/").body == b"hello"
    s.wait_log(f"Serving on http://127.0.0.1:{s.port}")


def test_waitress_serve_takes_the_application_as_an_option(weir, folder):
    s = weir(
        command=[
            *weir_command(), "waitress-serve", "--listen=127.0.0.1:0", "--app=greet.app", "--th=8",
        ],
        cwd=folder,
    )
    assert s.get("/").body == b"hello"
    s.wait_log("threads 4:8")


def test_options_of_waitress_without_effect_are_told(weir, folder):
    s = weir("greet:app", waitress=True, cwd=folder, recv_bytes=1, asyncore_use_poll=True)
    assert s.log.count("has no effect") == 2
    assert "--recv-bytes has no effect: " in s.log


def test_other_folder_is_entered_before_the_import(weir, folder, tmp_path):
    assert weir("greet:app", cwd=tmp_path, chdir="site").get("/").body == b"hello"
    assert weir("greet:app", cwd=tmp_path, pythonpath="site").get("/").body == b"hello"


def test_environment_file_reaches_the_application_but_overrides_nothing(weir, folder):
    (folder / ".env").write_text("GREETING='from the file'\n")
    assert weir("greet:app", cwd=folder, env_file=".env").get("/").body == b"from the file"
    s = weir("greet:app", cwd=folder, env_file=".env", env={"GREETING": "outside"})
    assert s.get("/").body == b"outside"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def test_port_of_the_environment_opens_all_interfaces(weir, folder):
    port = free_port()
    s = weir("greet:app", cwd=folder, bind=None, env={"PORT": str(port)})
    assert f"on http://0.0.0.0:{port} " in s.log
    with Client(("127.0.0.1", port)) as c:
        assert c.get("/").body == b"hello"


def test_settings_come_from_the_environment(weir, folder):
    s = weir(
        "greet:app", cwd=folder, bind=None,
        env={"WEIR_BIND": "127.0.0.1:0,[::1]:0", "WEIR_THREADS": "1:3"},
    )
    s.wait_log("http://[::1]:")
    assert "http://127.0.0.1:" in s.log and "threads 1:3" in s.log


def test_unix_socket_and_tcp_serve_side_by_side(weir, folder, tmp_path):
    path = tmp_path / "s"
    s = weir("greet:app", cwd=folder, bind=["127.0.0.1:0", f"unix:{path}"])
    s.wait_log(f"unix:{path}")
    for address in (s.address, str(path)):
        with Client(address) as c:
            assert c.get("/").body == b"hello"
    s.stop()
    assert not path.exists()


def test_module_of_python_serves(weir, folder):
    command, env = as_module()
    s = weir(command=[*command, "--bind", "127.0.0.1:0", "greet:app"], cwd=folder, env=env)
    assert s.get("/").body == b"hello"


def test_virtual_environment_is_used_before_the_system(tmp_path):
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python3"
    python.write_text('#!/bin/sh\necho "venv $*"\n')
    python.chmod(0o755)
    r = run("a:b", "-t", "3", env={"VIRTUAL_ENV": str(venv)})
    assert r.stdout == "venv -m weir a:b -t 3\n"
    chosen = tmp_path / "mine"
    chosen.write_text('#!/bin/sh\necho "mine $*"\n')
    chosen.chmod(0o755)
    r = run("a:b", env={"WEIR_PYTHON": str(chosen)})
    assert r.stdout == "mine -m weir a:b\n"


def test_python_that_cannot_run_it_is_told(tmp_path):
    r = run("a:b", env={"WEIR_PYTHON": str(tmp_path / "none")}, cwd=tmp_path)
    assert "cannot run WEIR_PYTHON" in r.stderr and r.returncode == 4


# ---- serve() ----

SERVE = """
import sys
from weir import serve

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]

try:
    serve(app, %s)
finally:
    print("returned", file=sys.stderr)
"""


@pytest.fixture
def script(weir, tmp_path):
    _, env = as_module()

    def start(keywords, **more):
        path = tmp_path / "script.py"
        path.write_text(SERVE % keywords)
        return weir(command=[PYTHON, str(path)], cwd=tmp_path, env=env, **more)

    return start


def test_serve_takes_host_port_and_threads(script):
    s = script("host='127.0.0.1', port=0, threads=8")
    assert s.get("/").body == b"served"
    s.wait_log("threads 4:8")
    assert "Serving on http://127.0.0.1:" in s.log


def test_serve_returns_on_ctrl_c(script):
    s = script("listen='127.0.0.1:0 [::1]:0'")
    s.wait_log(re.compile(r"serving an application on .*http://\[::1\]:"))
    assert "Serving on http://[::1]:" in s.log
    s.stop(signal.SIGINT)
    assert "returned" in s.log


def test_serve_takes_bound_sockets(weir, tmp_path):
    _, env = as_module()
    (tmp_path / "script.py").write_text(
        "import socket\nfrom weir import serve\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "serve(lambda e, r: (r('200 OK', []), [b'mine'])[1], sockets=[s], _quiet=True)\n"
    )
    s = weir(command=[PYTHON, "script.py"], cwd=tmp_path, env=env)
    assert s.get("/").body == b"mine" and len(s.addresses) == 1


def python(code, tmp_path):
    _, env = as_module()
    return run("-c", code, command=[PYTHON], env=env, cwd=tmp_path)


@pytest.mark.parametrize(
    "keywords, text",
    [
        ("thraeds=8", "thraeds: unknown setting; did you mean 'threads'?"),
        ("threads='x'", "threads: 'x' is not a number"),
        ("listen='a:1', port=5", "host or port may not be set if listen is set"),
        ("trusted_proxy_count=2", "has no meaning without trusted-proxy"),
        ("sockets=[], host='h'", "host or port may not be set if sockets is set"),
        ("map={}", "map: this is a part of Waitress' own event loop"),
        ("_start=False", "_start: this is a part of Waitress' own event loop"),
    ],
)
def test_wrong_keywords_are_value_errors(tmp_path, keywords, text):
    r = python(
        f"from weir import serve\ntry:\n    serve(lambda e, s: [], {keywords})\n"
        "except ValueError as e:\n    print('ValueError', e)\n",
        tmp_path,
    )
    assert r.stdout.startswith("ValueError") and text in r.stdout, r.stderr


def test_created_server_is_closed_by_another_thread(tmp_path):
    r = python(
        "import threading, urllib.request, weir\n"
        "s = weir.create_server(lambda e, r: (r('200 OK', []), [b'x'])[1], host='127.0.0.1', port=0)\n"
        "def use():\n"
        "    print(urllib.request.urlopen(f'http://127.0.0.1:{s.effective_port}/').read())\n"
        "    s.close()\n"
        "threading.Thread(target=use).start()\n"
        "s.run()\n"
        "print(s.effective_host, s.effective_listen == [('127.0.0.1', s.effective_port)])\n",
        tmp_path,
    )
    assert r.stdout == "b'x'\n127.0.0.1 True\n", r.stderr
