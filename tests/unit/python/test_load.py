"""weir._load: names to applications, and sentences for what is wrong."""

from __future__ import annotations

import gc
import sys
import textwrap

import pytest

from weir import _load


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder from which modules are imported; forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    _load.prepare_path([])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


APP = """
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"here"]
"""


def failure(name, **options):
    with pytest.raises(_load.LoadError) as caught:
        _load.load(name, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line, caught.value.details


def test_module_and_attribute_are_found(folder):
    write(folder, "api/index.py", APP)
    assert _load.load("api.index:app").__name__ == "app"


def test_attribute_may_have_dots(folder):
    write(folder, "one.py", APP + "    class Holder:\n        inner = staticmethod(app)\n")
    assert _load.load("one:Holder.inner").__name__ == "app"


def test_name_without_colon_is_imported_as_far_as_possible(folder):
    write(folder, "api/__init__.py", "")
    write(folder, "api/index.py", APP)
    assert _load.load("api.index.app").__name__ == "app"


def test_module_alone_means_its_app_or_application(folder):
    write(folder, "one.py", APP)
    write(folder, "two.py", APP.replace("def app", "def application"))
    assert _load.load("one").__name__ == "app"
    assert _load.load("two").__name__ == "application"


def test_module_alone_without_application_names_what_is_there(folder):
    write(folder, "one.py", "def create_app():\n    pass\n")
    line, _ = failure("one")
    assert "neither 'app' nor 'application'" in line and "one:create_app" in line


def test_factory_is_called(folder):
    write(folder, "one.py", APP + "    def make():\n        return app\n")
    assert _load.load("one:make", factory=True).__name__ == "app"


def test_class_is_an_application(folder):
    write(
        folder,
        "one.py",
        """
        class App:
            def __init__(self, environ, start_response):
                pass
            def __iter__(self):
                yield b""
        """,
    )
    assert _load.load("one:App").__name__ == "App"


def test_flask_application_is_accepted(folder):
    pytest.importorskip("flask")
    write(folder, "one.py", "from flask import Flask\napp = Flask(__name__)\n")
    assert callable(_load.load("one:app"))


def test_missing_module_names_the_folder_and_the_nearest(folder):
    write(folder, "server_app.py", APP)
    line, details = failure("server_ap:app")
    assert "'server_ap'" in line and "did you mean 'server_app'?" in line and str(folder) in line
    assert details == ""


def test_missing_module_without_neighbour_tells_the_cure(folder):
    line, _ = failure("nowhere_at_all:app")
    assert "--chdir" in line


def test_missing_submodule_names_the_nearest(folder):
    write(folder, "api/__init__.py", "")
    write(folder, "api/index.py", APP)
    line, details = failure("api.indx:app")
    assert "did you mean 'api.index'?" in line and details == ""


def test_module_that_is_no_package_is_said_so(folder):
    write(folder, "one.py", APP)
    line, _ = failure("one.two:app")
    assert "is a module, not a package" in line


def test_missing_dependency_shows_the_application_s_frames_only(folder):
    write(folder, "one.py", "import not_installed_thing\n")
    line, details = failure("one:app")
    assert "not_installed_thing" in line and sys.executable in line
    assert "one.py" in details and "importlib" not in details and "_load.py" not in details


def test_error_while_importing_is_named_with_its_line(folder):
    write(folder, "one.py", "def f():\n    return 1 / 0\nf()\n")
    line, details = failure("one:app")
    assert "ZeroDivisionError: division by zero" in line
    assert details.count("one.py") == 2 and "frozen" not in details


def test_causes_are_cut_as_well(folder):
    write(folder, "inner.py", "raise KeyError('x')\n")
    write(
        folder,
        "one.py",
        "try:\n    import inner\nexcept KeyError as e:\n    raise RuntimeError('y') from e\n",
    )
    _, details = failure("one:app")
    assert "direct cause" in details and "inner.py" in details and "importlib" not in details


def test_syntax_error_names_file_and_line(folder):
    write(folder, "one.py", "x = 1\ndef f(:\n")
    line, details = failure("one:app")
    assert "syntax error in one.py, line 2" in line and "def f(:" in details


def test_module_that_exits_is_said_so(folder):
    write(folder, "one.py", "raise SystemExit(3)\n")
    line, _ = failure("one:app")
    assert "ended the program (exit code 3)" in line and "__main__" in line


def test_wrong_attribute_names_the_nearest(folder):
    write(folder, "one.py", APP)
    line, _ = failure("one:ap")
    assert line == "module 'one' has no attribute 'ap'; did you mean 'one:app'?"


def test_wrong_attribute_without_neighbour_names_the_callables(folder):
    write(folder, "one.py", "def handle(environ, start_response): pass\n")
    line, _ = failure("one:zzz")
    assert "it has handle" in line


def test_what_is_not_callable_is_refused(folder):
    write(folder, "one.py", "app = {}\nbase = None\n")
    assert "'one:app' is a dict and is no WSGI application" in failure("one:app")[0]
    assert "None" in failure("one:base")[0]


def test_module_as_application_is_refused(folder):
    write(folder, "api/__init__.py", "")
    write(folder, "api/index.py", APP)
    write(folder, "one.py", "import api.index\n")
    assert "'one:api.index' is a module; write api.index:app" == failure("one:api.index")[0]


def test_factory_without_the_option_is_noticed(folder):
    write(folder, "one.py", "def create_app():\n    return lambda e, s: []\n")
    assert failure("one:create_app")[0].endswith("add --factory")
    assert failure("one:create_app", factory_option="--call")[0].endswith("add --call")


def test_async_application_is_refused(folder):
    write(
        folder,
        "one.py",
        """
        async def app(scope, receive, send): pass
        class Api:
            async def __call__(self, scope, receive, send): pass
        api = Api()
        """,
    )
    assert "ASGI" in failure("one:app")[0]
    assert "ASGI" in failure("one:api")[0]


def test_failing_factory_is_named_with_its_traceback(folder):
    write(folder, "one.py", "def make():\n    raise ValueError('no database')\n")
    line, details = failure("one:make", factory=True)
    assert "the factory 'one:make' failed: ValueError: no database" == line
    assert "one.py" in details


def test_factory_that_needs_arguments_is_said_so(folder):
    write(folder, "one.py", "def make(config):\n    pass\n")
    assert "needs arguments" in failure("one:make", factory=True)[0]


def test_factory_that_returns_nothing_is_said_so(folder):
    write(folder, "one.py", "def make():\n    pass\n")
    assert "returned None, which is no WSGI application" in failure("one:make", factory=True)[0]


def test_pythonpath_comes_before_the_current_folder(folder):
    write(folder, "one.py", APP)
    write(folder, "lib/one.py", APP.replace("def app", "def application"))
    _load.prepare_path(["lib"])
    assert _load.load("one").__name__ == "application"


# ---- the collector ----


@pytest.fixture
def thresholds():
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def test_the_collector_runs_seldom_while_the_application_is_imported(folder, thresholds):
    write(folder, "one.py", "import gc\nSEEN = gc.get_threshold()\nON = gc.isenabled()\n" + textwrap.dedent(APP))
    with _load.collecting_seldom():
        _load.load("one:app")
    assert sys.modules["one"].SEEN[0] >= 10_000 and sys.modules["one"].ON
    assert gc.get_threshold() == thresholds


def test_what_the_application_sets_for_the_collector_stays(folder, thresholds):
    write(folder, "one.py", "import gc\ngc.set_threshold(1234, 5, 6)\n" + textwrap.dedent(APP))
    with _load.collecting_seldom():
        _load.load("one:app")
    assert gc.get_threshold() == (1234, 5, 6)


def test_a_collector_that_is_off_stays_off(folder, thresholds):
    gc.set_threshold(0)
    with _load.collecting_seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0


def test_the_collector_is_as_before_when_the_import_fails(folder, thresholds):
    with pytest.raises(_load.LoadError), _load.collecting_seldom():
        _load.load("missing:app")
    assert gc.get_threshold() == thresholds
