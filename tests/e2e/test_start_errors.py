"""Starts that fail: one clear line with cause and cure, the exit code of the peer, within 3 seconds."""

from __future__ import annotations

import os
import socket
import time

import pytest
from harness import PATIENCE, SANITIZED
from test_command_line import run

SECONDS = 3 * PATIENCE


@pytest.fixture(params=["own", "waitress"])
def failing(request, tmp_path):
    """Start in tmp_path, expect failure; returns the lines on standard error.

    `status` is Weir's own exit code: 4 where the application cannot be loaded, 3 where a worker cannot start
    for another reason, 1 before there are workers. Waitress' runner has only 1.
    """

    def start(app, *arguments, env=None, status=4):
        begun = time.monotonic()
        where = (
            ["waitress-serve", "--listen=127.0.0.1:0"]
            if request.param == "waitress"
            else ["--bind=127.0.0.1:0"]
        )
        if any(a.startswith("--bind") or a.startswith("--listen") for a in arguments):
            where.pop()
        r = run(*where, *arguments, app, cwd=tmp_path, env=env)
        assert time.monotonic() - begun < SECONDS
        assert r.returncode == (1 if request.param == "waitress" else status), r.stderr
        assert r.stdout == ""
        assert r.stderr.startswith("weir: "), r.stderr
        assert "site-packages/weir" not in r.stderr and "python/weir" not in r.stderr
        assert "importlib" not in r.stderr
        return r.stderr.splitlines()

    start.folder = tmp_path
    start.dialect = request.param
    return start


GOOD = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"


def test_missing_module_names_the_nearest(failing):
    (failing.folder / "server.py").write_text(GOOD)
    lines = failing("servr:app")
    assert len(lines) == 1 and "no module 'servr'" in lines[0]
    assert "did you mean 'server'?" in lines[0]


def test_missing_attribute_names_the_nearest(failing):
    (failing.folder / "server.py").write_text(GOOD)
    lines = failing("server:ap")
    assert lines == ["weir: module 'server' has no attribute 'ap'; did you mean 'server:app'?"]


def test_missing_dependency_shows_the_line_that_needs_it(failing):
    (failing.folder / "api").mkdir()
    (failing.folder / "api" / "index.py").write_text("import flaskk_not_there\n" + GOOD)
    lines = failing("api.index:app")
    assert "No module named 'flaskk_not_there'; install it" in lines[0]
    assert any("api/index.py" in line for line in lines[1:])
    assert len(lines) <= 6


def test_error_while_importing_shows_the_application_s_frames(failing):
    (failing.folder / "server.py").write_text("import os\nos.environ['NOT_SET']\n" + GOOD)
    lines = failing("server:app")
    assert lines[0] == "weir: cannot import 'server': KeyError: 'NOT_SET'"
    assert any('server.py", line 2' in line for line in lines)


def test_syntax_error_names_file_and_line(failing):
    (failing.folder / "server.py").write_text("x = 1\ndef f(:\n")
    lines = failing("server:app")
    assert "syntax error in server.py, line 2" in lines[0]


def test_what_is_no_application_is_refused(failing):
    (failing.folder / "server.py").write_text("app = {}\n")
    assert "a dict and is no WSGI application" in failing("server:app")[0]


def test_factory_without_its_option_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD + "def create_app():\n    return app\n")
    option = "--call" if failing.dialect == "waitress" else "--factory"
    assert failing("server:create_app")[0].endswith(f"add {option}")


def test_failing_factory_shows_its_traceback(failing):
    (failing.folder / "server.py").write_text("def make():\n    raise OSError('no database')\n")
    lines = failing("server:make", "--call" if failing.dialect == "waitress" else "--factory")
    assert lines[0] == "weir: the factory 'server:make' failed: OSError: no database"
    assert any('server.py", line 2' in line for line in lines)


def test_asgi_application_is_refused(failing):
    (failing.folder / "server.py").write_text("async def app(scope, receive, send): pass\n")
    assert "ASGI" in failing("server:app")[0]


def test_port_in_use_is_named_with_a_cure(failing):
    (failing.folder / "server.py").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        option = "--listen" if failing.dialect == "waitress" else "--bind"
        lines = failing("server:app", f"{option}=127.0.0.1:{port}", status=1)
    assert f"127.0.0.1:{port}" in lines[0] and "use" in lines[0]
    assert "another port" in lines[0]
    assert len(lines) == 1


def test_address_of_another_machine_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD)
    option = "--listen" if failing.dialect == "waitress" else "--bind"
    lines = failing("server:app", f"{option}=192.0.2.1:8000", status=1)
    assert "192.0.2.1:8000" in lines[0] and len(lines) == 1


def test_socket_path_in_a_missing_folder_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD)
    if failing.dialect == "waitress":
        pytest.skip("told by the own dialect")
    lines = failing("server:app", "--bind=unix:/nonexistent/folder/s", status=1)
    assert "/nonexistent/folder/s" in lines[0] and len(lines) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
def test_port_without_permission_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD)
    option = "--listen" if failing.dialect == "waitress" else "--bind"
    assert "ermission" in failing("server:app", f"{option}=127.0.0.1:1", status=1)[0]


def test_unreadable_log_file_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD)
    lines = failing("server:app", "--access-log=/nonexistent/access.log", status=3)
    assert "/nonexistent/access.log" in lines[0] and len(lines) == 1
    lines = failing("server:app", "--error-log=/nonexistent/error.log", status=1)
    assert "/nonexistent/error.log" in lines[0]


def test_bad_list_of_trusted_addresses_is_named(failing):
    (failing.folder / "server.py").write_text(GOOD)
    lines = failing("server:app", "--trusted-proxy=nonsense", "--trusted-proxy-headers=forwarded", status=3)
    assert "nonsense" in lines[0] and len(lines) == 1


@pytest.mark.skipif(SANITIZED, reason="sanitizers need address space of their own")
@pytest.mark.parametrize("mib", [40, 100])
def test_threads_that_cannot_be_made_are_told(failing, mib):
    (failing.folder / "server.py").write_text(
        GOOD + "import resource\n"
        "size = [line for line in open('/proc/self/status') if line.startswith('VmSize')][0].split()[1]\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (int(size) * 1024 + {mib} * 1024 * 1024, -1))\n"
    )
    if failing.dialect == "waitress":
        pytest.skip("the size of stacks is an option of the own dialect")
    lines = failing("server:app", "--thread-stack=64M", status=3)
    assert "cannot make a thread" in lines[0] and len(lines) == 1
