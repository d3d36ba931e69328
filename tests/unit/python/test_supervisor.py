"""What the supervisor does in Python: settings of a reload, hooks, lines of the log."""

from __future__ import annotations

import os
import types

import pytest

from weir import _hooks, _load, _supervisor


class Core:
    """Stands in for weir._core; remembers the log, and runs nothing."""

    def __init__(self):
        self.entries = []
        self.next = {}

    def log(self, level, text):
        self.entries.append((level, text))

    def parse(self, argv, dialect, environ):
        self.seen = environ
        return self.next


class Process:
    def __init__(self, folder):
        self.folder = str(folder)
        self.environ = dict(os.environ)
        self.daemon = None


def config(**fields):
    return types.SimpleNamespace(**{"chdir": "", "workers": 2, "dialect": "weir", "app": "a:b", "reload": False, **fields})


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEPT", "as it was")
    monkeypatch.delenv("ADDED", raising=False)

    def make(hooks=_hooks.Hooks, environ=None, **fields):
        core = Core()
        process = Process(tmp_path)
        s = _supervisor.Supervisor(core, process, config(**fields), environ or {}, hooks(core, ["weir", "a:b"], "weir"))
        s.pid = os.getpid()
        s.apply(s.serving)
        return s

    yield make
    for name in ("ADDED", "OTHER", "SET_BY_FILE"):
        os.environ.pop(name, None)


def reload(supervisor, environ, **fields):
    """What a reload reads."""
    supervisor.core.next = {"config": config(**fields), "environ": environ, "status": 0, "message": ""}
    return supervisor.reload()


def test_a_reload_takes_back_what_the_last_configuration_added(made):
    s = made(environ={"ADDED": "one", "KEPT": "changed"})
    assert (os.environ["ADDED"], os.environ["KEPT"]) == ("one", "changed")
    new = reload(s, {"OTHER": "two"}, workers=5)
    assert s.config is new and s.cfg is new
    assert "ADDED" not in os.environ
    assert (os.environ["OTHER"], os.environ["KEPT"]) == ("two", "as it was")
    assert s.core.seen["KEPT"] == "as it was", "it is read with the environment of the start"


def test_what_a_configuration_file_sets_itself_stays(made):
    os.environ["SET_BY_FILE"] = "yes"
    s = made()
    reload(s, {})
    assert os.environ["SET_BY_FILE"] == "yes"


def test_a_reload_that_fails_goes_back(made, tmp_path):
    (tmp_path / "sub").mkdir()
    s = made(environ={"ADDED": "one"})
    old = s.config
    new = reload(s, {"ADDED": "two"}, chdir="sub")
    assert os.getcwd() == str(tmp_path / "sub")
    s.reloaded(False)
    assert s.config is old and s.cfg is old
    assert os.environ["ADDED"] == "one" and os.getcwd() == str(tmp_path)
    assert reload(s, {"ADDED": "two"}, chdir="sub") is not new
    s.reloaded(True)
    assert s.config is not old and os.environ["ADDED"] == "two"


def test_a_wrong_configuration_is_one_line_and_changes_nothing(made, tmp_path):
    s = made(environ={"ADDED": "one"})
    s.core.next = {"config": None, "status": 2, "message": "weir: weir.yaml:3: nonsense\n", "environ": {}}
    assert s.reload() is None
    assert s.core.entries == [(3, "not reloaded: weir.yaml:3: nonsense; all goes on as before")]
    assert reload(s, {}, chdir="missing") is None
    assert "cannot change to the folder 'missing'" in s.core.entries[-1][1]
    assert os.environ["ADDED"] == "one" and os.getcwd() == str(tmp_path)


class Failing(_hooks.Hooks):
    def load_config(self, environ):
        raise ZeroDivisionError

    def pre_fork(self, supervisor, worker):
        raise ValueError("from the hook")

    child_exit = on_exit = nworkers_changed = pre_fork

    def when_ready(self, supervisor):
        raise ValueError("not ready")

    def on_starting(self, supervisor):
        raise SystemExit(7)


def test_hooks_that_fail_are_logged_with_their_traceback(made):
    s = made(Failing)
    worker = s.spawning(1)
    level, text = s.core.entries[-1]
    assert level == 3 and text.startswith("the hook pre_fork failed:\nTraceback")
    assert text.endswith("ValueError: from the hook")
    s.spawned(worker, 99)
    assert s.workers == {99: worker}
    s.exited(worker, 0)
    assert s.workers == {} and worker.status == 0
    s.counted(3, 2)
    assert s.num_workers == 3
    assert s.ready() is False
    assert s.reload() is None
    assert "ZeroDivisionError" in s.core.entries[-1][1]


def test_a_hook_without_which_there_is_no_start_ends_it(made):
    s = made(Failing)
    with pytest.raises(_supervisor.StartError) as error:
        _supervisor.must_return(s.hooks.when_ready, s)
    assert str(error.value) == "the hook when_ready failed" and "ValueError: not ready" in error.value.details
    with pytest.raises(_supervisor.StartError, match=r"the hook on_starting ended the program \(exit code 7\)"):
        _supervisor.must_return(s.hooks.on_starting, s)


def test_the_log_has_a_loggers_methods(made):
    s = made()
    s.log.info("%s of %d", "one", 2)
    s.log.warn("100 %")
    s.log.log(40, "x%s", "y")
    s.log.debug("\udcff and \0")
    assert s.core.entries == [(1, "one of 2"), (2, "100 %"), (3, "xy"), (0, "? and ?")]
    try:
        raise KeyError("k")
    except KeyError:
        s.log.exception("while %s", "testing")
    assert s.core.entries[-1][1].startswith("while testing\nTraceback") and "KeyError: 'k'" in s.core.entries[-1][1]


class Running:
    """weir._core.Supervisor in a worker."""

    def __init__(self, supervises=True, first=True):
        self.supervises = supervises
        self.first = first

    def begin(self):
        return self.supervises

    def may_complain(self):
        return self.first


@pytest.mark.parametrize("first", [True, False])
def test_the_first_worker_alone_says_why_it_cannot_start(made, capsys, first):
    class Hooks(_hooks.Hooks):
        def load_app(self, config):
            raise _load.LoadError("no such application", "Traceback: here\n")

    s = made(Hooks)
    s.c = Running(first=first)
    worker = s.spawning(1)
    assert _supervisor.work(s, worker) == _supervisor.APP_FAILED
    assert capsys.readouterr().err == ("weir: no such application\nTraceback: here\n" if first else "")
    assert worker.pid == os.getpid() and not worker.booted


def test_a_hook_that_fails_in_a_new_worker_is_3(made, capsys):
    class Hooks(_hooks.Hooks):
        def post_fork(self, supervisor, worker):
            raise ValueError("no database")

    s = made(Hooks)
    s.c = Running()
    assert _supervisor.work(s, s.spawning(1)) == _supervisor.BOOT_FAILED
    assert "weir: the hook post_fork failed\n" in capsys.readouterr().err


def test_a_worker_without_its_supervisor_does_not_begin(made):
    s = made()
    s.c = Running(supervises=False)
    assert _supervisor.work(s, s.spawning(1)) == 0
