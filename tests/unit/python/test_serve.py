"""serve() and create_server() against a stand-in for the extension."""

from __future__ import annotations

import os
import re
import socket
import sys
import types

import pytest
from conftest import ROOT

import weir
from weir import _cli, _options


class FakeServer:
    def __init__(self, app, config):
        self.app, self.config, self.lines, self.runs, self.closed = app, config, [], [], 0
        self.addresses = list(config.addresses)
        self.left = 0

    def listen(self):
        if self.config.error:
            raise self.config.error

    def run(self, own_signals):
        self.runs.append(own_signals)

    def close(self):
        self.closed += 1

    def report(self, text):
        self.lines.append(text)


@pytest.fixture
def core(monkeypatch):
    made = types.SimpleNamespace(
        addresses=["http://0.0.0.0:8080"], error=None, configs=[], servers=[], parsed={}
    )

    def config(dialect, pairs, fds):
        made.configs.append((dialect, dict(pairs), list(fds)))
        return made

    def server(app, config):
        made.servers.append(FakeServer(app, config))
        return made.servers[-1]

    def parse(argv, dialect, env):
        made.argv, made.dialect = argv, dialect
        return {"message": "", "output": "", "status": 0, "environ": {}, **made.parsed}

    fake = types.SimpleNamespace(config=config, Server=server, parse=parse, process_begin=lambda *a: None, process_end=lambda: None,
                                 signals_early=lambda: None, signals_late=lambda: False)
    monkeypatch.setattr(weir, "_extension", lambda: fake)
    return made


def app(environ, start_response):
    return []


def test_serve_hands_over_every_keyword_as_text(core):
    weir.serve(
        app,
        host="0.0.0.0",
        port=5000,
        threads=8,
        ipv6=False,
        unix_socket_perms=0o660,
        listen=["a:1", "b:2"],
        trusted_proxy_headers={"x-forwarded-for"},
        trusted_proxy=None,
        ident=None,
    )
    assert core.configs == [
        (
            "waitress",
            {
                "host": "0.0.0.0",
                "port": "5000",
                "threads": "8",
                "ipv6": "false",
                "unix_socket_perms": "660",
                "listen": "a:1 b:2",
                "trusted_proxy_headers": "x-forwarded-for",
                "ident": "",
            },
            [],
        )
    ]


def test_serve_tells_its_address_and_leaves_signals_to_its_caller(core):
    weir.serve(app)
    assert core.servers[0].lines == ["Serving on http://0.0.0.0:8080"]
    assert core.servers[0].runs == [False]


def test_quiet_serve_tells_nothing(core):
    weir.serve(app, _quiet=True)
    assert core.servers[0].lines == []


def test_own_server_factory_gets_the_keywords(core):
    seen = {}

    def factory(application, **options):
        seen.update(options)
        return types.SimpleNamespace(run=lambda: seen.setdefault("ran", True))

    weir.serve(app, _server=factory, _quiet=True, port=1)
    assert seen == {"port": 1, "ran": True}


def test_serve_paste_returns_zero(core):
    assert weir.serve_paste(app, {}, port="80") == 0


def test_profile_prints_what_took_time(core, capsys):
    weir.serve(app, _quiet=True, _profile=True)
    assert "function calls" in capsys.readouterr().out


def test_created_server_knows_its_addresses(core):
    core.addresses = ["http://127.0.0.1:8080", "http://[::1]:8081"]
    server = weir.create_server(app)
    assert server.effective_listen == [("127.0.0.1", 8080), ("::1", 8081)]
    assert (server.effective_host, server.effective_port) == ("127.0.0.1", 8080)
    server.print_listen("on {}:{}")
    assert core.servers[0].lines == ["on 127.0.0.1:8080", "on [::1]:8081"]
    server.close()
    assert core.servers[0].closed == 1


def test_unix_address_is_taken_apart():
    assert _options.address("http://unix:/run/a:b.sock") == ("unix", "/run/a:b.sock")


def test_sockets_are_lent_as_copies(core):
    with socket.create_server(("127.0.0.1", 0)) as own:
        weir.create_server(app, sockets=[own])
        (_, pairs, fds) = core.configs[0]
        assert pairs == {"sockets": ""} and fds[0] != own.fileno()
        copy = socket.socket(fileno=fds[0])
        assert copy.getsockname() == own.getsockname()
        copy.close()


def test_copies_of_sockets_are_closed_when_the_start_fails(core):
    core.error = OSError("in use")
    with socket.create_server(("127.0.0.1", 0)) as own:
        with pytest.raises(OSError, match="in use"):
            weir.create_server(app, sockets=[own])
    with pytest.raises(OSError):
        os.fstat(core.configs[0][2][0])


def test_sockets_of_two_kinds_are_refused(core, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.socket(socket.AF_UNIX) as two:
        with pytest.raises(ValueError, match="may not be mixed"):
            weir.create_server(app, sockets=[one, two])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        with pytest.raises(ValueError, match="stream sockets"):
            weir.create_server(app, sockets=[udp])


def test_what_cannot_be_called_is_refused(core):
    with pytest.raises(ValueError, match="not callable"):
        weir.serve({})


def test_whole_floats_are_numbers():
    assert _options.text("threads", 2.0) == "2" and _options.text("keep_alive", 1.5) == "1.5"


def test_value_of_a_strange_type_is_refused(core):
    with pytest.raises(ValueError, match="host: a dict"):
        weir.serve(app, host={})


def test_version_is_the_same_everywhere():
    header = (ROOT / "src/conf/version.h").read_text()
    assert re.search(r'"([\d.]+)"', header)[1] == weir.__version__


def test_waitress_serve_chooses_the_dialect():
    assert _cli.split(["/bin/weir", "waitress-serve", "a:b"]) == (
        "waitress",
        ["weir waitress-serve", "a:b"],
    )
    assert _cli.split(["/bin/weir", "a:b"]) == ("weir", ["weir", "a:b"])


def test_free_threaded_python_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: name == "Py_GIL_DISABLED")
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert _cli.main(["weir", "a:b"]) == 1
    assert "free-threaded" in capsys.readouterr().err


def test_old_python_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert _cli.main(["weir", "a:b"]) == 1
    assert "needs Python 3.10" in capsys.readouterr().err


def test_missing_extension_names_the_python(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "weir._core", None)
    assert _cli.main(["weir", "a:b"]) == 1
    assert sys.executable in capsys.readouterr().err


def config(**fields):
    base = dict(app="one:app", factory=False, chdir="", pythonpath=[], dialect="weir", daemon=False, workers=0)
    return types.SimpleNamespace(**{**base, **fields}, addresses=["http://h:1"], error=None)


def test_environment_files_reach_the_application(core, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("FROM_FILE", raising=False)
    (tmp_path / "env_app.py").write_text(
        "import os\nassert os.environ['FROM_FILE'] == 'x'\ndef app(e, s): return []\n"
    )
    core.parsed = {
        "action": "run",
        "environ": {"FROM_FILE": "x"},
        "config": config(app="env_app:app", dialect="waitress"),
    }
    assert _cli.main(["weir", "waitress-serve", "env_app:app"]) == 0
    assert core.servers[0].lines == ["Serving on http://h:1"]
    monkeypatch.delenv("FROM_FILE")


def test_error_of_the_address_is_one_line(core, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "addr_app.py").write_text("def app(e, s): return []\n")
    failing = config(app="addr_app:app")
    failing.error = OSError("cannot listen on h:1: in use")
    core.parsed = {"action": "run", "config": failing}
    assert _cli.main(["weir", "addr_app:app"]) == 1
    assert capsys.readouterr().err == "weir: cannot listen on h:1: in use\n"
