"""`weir gunicorn`: where settings come from, the configuration file, the application, exit codes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from gunicorn_helpers import Gunicorn
from harness import SANITIZED, wait_for


@pytest.fixture
def gunicorn(weir, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Gunicorn(weir, folder)


def printed(gunicorn: Gunicorn, *options: str, **more) -> dict[str, str]:
    """Gunicorn's settings, as --print-config shows them."""
    r = gunicorn.run("--print-config", *options, **more)
    assert r.returncode == 0, r.stderr
    head = r.stdout.partition("\n\n")[0]
    return {name.strip(): value for name, _, value in (line.partition(" = ") for line in head.splitlines())}


# ---- sources ----


def test_the_file_of_the_current_folder_is_read(gunicorn):
    s = gunicorn(conf="raw_env = ['GREETING=from the file']")
    assert s.get("/").json()["greeting"] == "from the file"


def test_a_file_is_named_by_path_prefix_or_module(gunicorn):
    gunicorn.write("workers = 7")  # is not read then
    gunicorn.write("workers = 3", "other.py")
    for name in ("other.py", "./other.py", "file:other.py", str(gunicorn.folder / "other.py"), "python:other"):
        assert printed(gunicorn, "-c", name)["workers"] == "3"
    (gunicorn.folder / "plain").write_text("workers = 4")
    assert printed(gunicorn, "--config=plain")["workers"] == "4"
    assert printed(gunicorn, env={"GUNICORN_CMD_ARGS": "-c plain"})["workers"] == "4"


def test_stronger_sources_win(gunicorn):
    gunicorn.write("""
        workers = 2
        threads = 2
        backlog = 2
        timeout = 2
    """)
    found = printed(gunicorn, "--threads", "4", "--backlog", "4", env={
        "GUNICORN_CMD_ARGS": "--workers 3 --threads=3", "WEB_CONCURRENCY": "9", "WEIR_BACKLOG": "9"})
    assert [found[n] for n in ("workers", "threads", "backlog", "timeout", "keepalive")] == ["3", "4", "4", "2", "2"]


def test_the_environment_gives_defaults(gunicorn):
    env = {"PORT": "5011", "WEB_CONCURRENCY": "3", "FORWARDED_ALLOW_IPS": "10.1.1.1", "SCRIPT_NAME": "/x"}
    r = gunicorn.run("--print-config", bind=None, env=env)
    for line in ("bind = 0.0.0.0:5011 ", "workers = 3 ", "trusted-proxy = 10.1.1.1,unix ", "url-prefix = /x "):
        assert "\n" + line in r.stdout
    gunicorn.write("workers = 5\nbind = '127.0.0.1:5012'\nforwarded_allow_ips = '*'")
    r = gunicorn.run("--print-config", bind=None, env=env)
    for line in ("bind = 127.0.0.1:5012 ", "workers = 5 ", "trusted-proxy = * "):
        assert "\n" + line in r.stdout


def test_settings_of_weir_work_under_this_name(gunicorn):
    (gunicorn.folder / "weir.yaml").write_text("max-fields: 50\nbody-memory: 1k\n")
    gunicorn.write("limit_request_fields = 60")
    r = gunicorn.run("--print-config", "--threads", "auto", "--max-body-size=2M", env={"WEIR_BODY_MEMORY": "2k"})
    assert r.returncode == 0, r.stderr
    for line in ("threads = auto", "max-body-size = 2M", "max-fields = 60", "body-memory = 2k"):
        assert "\n" + line + " " in r.stdout


def test_print_config_shows_gunicorns_settings_and_weirs_with_their_sources(gunicorn):
    gunicorn.write("""
        workers = 2
        def post_fork(server, worker):
            pass
        secure_scheme_headers = {'X-SCHEME': 'https'}
    """)
    r = gunicorn.run("--print-config", "--worker-tmp-dir", "/dev/shm")
    assert "\nworkers                            = 2\n" in r.stdout
    assert "= <post_fork()>" in r.stdout and "= {'X-SCHEME': 'https'}" in r.stdout
    assert "\nworkers = 2                             # gunicorn.conf.py: workers\n" in r.stdout
    assert r.stderr == ("weir: --worker-tmp-dir has no effect: workers tell that they live through shared memory, "
                        "not through a file\n")


# ---- what is wrong ----


@pytest.mark.parametrize("conf, said", [
    ("workers = 1\nbind = [", "gunicorn.conf.py, line 2: syntax error: '[' was never closed"),
    ("import os\nos.environ['NOT_THERE']", "gunicorn.conf.py, line 2: KeyError: 'NOT_THERE'"),
    ("import sys\nsys.exit(3)", "gunicorn.conf.py: the configuration file ended the program (exit code 3)"),
    ("from gunicornnothere import x", "gunicorn.conf.py, line 1: ModuleNotFoundError: No module named 'gunicornnothere'"),
    ("workers = 'many'", "gunicorn.conf.py: workers: 'many' is not a number; give N or auto"),
    ("workers = -1", "gunicorn.conf.py: workers: -1 is too small; the range is 0 to 1024"),
    ("workers = 1.5", "gunicorn.conf.py: workers: 1.5 is not a whole number"),
    ("preload_app = 3", "gunicorn.conf.py: preload_app: 3 is neither True nor False"),
    ("bind = 8000", "gunicorn.conf.py: bind: 8000 is no list of texts"),
    ("def post_fork(server): pass",
     "gunicorn.conf.py: post_fork: the function takes 1 arguments; it is called with 2"),
    ("def post_request(worker): pass",
     "gunicorn.conf.py: post_request: the function takes 1 arguments; it is called with 2 to 4"),
    ("when_ready = 'nowhere'", "gunicorn.conf.py: when_ready: 'nowhere' is not of the form module.function"),
    ("logconfig_dict = 3", "gunicorn.conf.py: logconfig_dict: a int is no dict"),
    ("secure_scheme_headers = 3", "gunicorn.conf.py: secure_scheme_headers: 3 is no dict"),
    ("raw_env = ['A']", "gunicorn.conf.py: raw_env: 'A' is not NAME=VALUE"),
    ("user = 'nobody-here'", "nobody-here"),
])
def test_a_wrong_file_is_told_in_one_line(gunicorn, conf, said):
    gunicorn.write(conf)
    r = gunicorn.run()
    assert r.returncode == 1 and r.stdout == ""
    assert said in r.stderr and r.stderr.startswith("weir: ") and r.stderr.count("\n") == 1, r.stderr


def test_a_file_that_is_named_must_be_there(gunicorn):
    r = gunicorn.run("-c", "none.py")
    assert r.returncode == 1
    assert "cannot read the configuration file" in r.stderr and "none.py': No such file" in r.stderr


def test_an_error_in_a_module_of_the_file_shows_the_way_there(gunicorn):
    (gunicorn.folder / "settings_of_mine.py").write_text("def make():\n    return 1 / 0\n")
    gunicorn.write("import settings_of_mine\nworkers = settings_of_mine.make()")
    r = gunicorn.run()
    first, *rest = r.stderr.splitlines()
    assert r.returncode == 1
    assert first == "weir: gunicorn.conf.py, line 2: ZeroDivisionError: division by zero"
    assert any('settings_of_mine.py", line 2' in line for line in rest)
    assert "_gunicorn" not in r.stderr


def test_gunicorn_itself_is_not_needed_and_its_absence_explained(gunicorn):
    # A package of that name that cannot be found, whatever is installed here.
    gunicorn.write("import sys\nsys.modules['gunicorn'] = None\nfrom gunicorn.glogging import Logger")
    r = gunicorn.run()
    assert r.returncode == 1
    assert "gunicorn.conf.py, line 3: it imports gunicorn" in r.stderr and "which is not installed" in r.stderr


def test_other_names_in_the_file_are_left_alone(gunicorn):
    gunicorn.write("""
        import multiprocessing
        app = 5
        max_body_size = "nonsense"
        Workers = "nonsense"
        workers = max(2, min(multiprocessing.cpu_count(), 3))
    """)
    assert printed(gunicorn)["workers"] in ("2", "3")


@pytest.mark.parametrize("options, status", [
    (("--nonsense",), 2), (("-w", "x"), 2), (("-w",), 2), (("-w", "-3"), 1), (("--protocol", "uwsgi"), 1),
    (("-k", "uvicorn.workers.UvicornWorker"), 1), (("--chdir", "/none"), 1)])
def test_exit_codes_of_a_wrong_command_line(gunicorn, options, status):
    r = gunicorn.run(*options)
    assert r.returncode == status and r.stdout == ""
    if status == 2:
        assert r.stderr.startswith("usage: weir gunicorn [OPTIONS] [APP_MODULE]\nweir gunicorn: error: ")
    else:
        assert r.stderr.startswith("weir: ") and r.stderr.count("\n") == 1


def test_no_application_is_an_error_of_the_configuration(gunicorn):
    r = gunicorn.run(app=None)
    assert r.returncode == 1 and "No application module specified" in r.stderr


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's wrapper needs PATH")
def test_a_wrong_command_line_is_told_without_python(gunicorn):
    r = gunicorn.run("--nonsense", env={"WEIR_PYTHON": "/nowhere", "PATH": "/nowhere", "PYTHONHOME": "/nowhere"})
    assert r.returncode == 2


# ---- the application ----


def test_the_default_name_is_application(gunicorn):
    assert gunicorn(app="process_told").get("/").status == 200


def test_a_factory_is_called_with_plain_values(gunicorn):
    s = gunicorn(app="process_told:make('a', 2, debug=True, names=['x'])")
    assert s.get("/").json() == [["a", 2], {"debug": True, "names": ["x"]}]


def test_the_application_may_be_named_in_the_file(gunicorn):
    assert gunicorn(app=None, conf="wsgi_app = 'process_told:make(1)'").get("/").json() == [[1], {}]


@pytest.mark.parametrize("app, said", [
    ("process_told:nothing", "has no attribute 'nothing'"),
    ("nothing_here:app", "no module 'nothing_here'"),
    ("process_told:make(os.getcwd())", "only a call with plain values can be written here"),
    ("process_told:make(", "only a call with plain values can be written here"),
    ("process_told:make(**{})", "only a call with plain values can be written here"),
    ("process_told:told(3)", "does not take these arguments: told() takes 0 positional arguments but 1 was given"),
    ("process_told:IMPORTED_BY", "it is not callable"),
    ("process_told:a-b", "does not name an application"),
])
def test_an_application_that_cannot_be_loaded_ends_with_4(gunicorn, app, said):
    r = gunicorn.run(app=app)
    assert r.returncode == 4
    assert said in r.stderr, r.stderr
    r = gunicorn.run("--check-config", app=app)
    assert r.returncode == 1 and said in r.stderr


def test_check_config_imports_the_application(gunicorn):
    r = gunicorn.run("--check-config")
    assert (r.returncode, r.stderr) == (0, "")
    gunicorn.write("check_config = True")
    assert gunicorn.run().returncode == 0
