"""--reload: a file changes, and the next answer is by the new code."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest
from harness import Server, Starter, wait_for
from test_command_line import as_module, run

APP = """
import time
import part

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1)
    if path == "/late":
        import late
        start_response("200 OK", [])
        return [late.TEXT.encode()]
    if path == "/fail":
        raise RuntimeError("told to the browser")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [part.TEXT.encode()]
"""
HTML = "Accept: text/html"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    (folder / "part.py").write_text("TEXT = '1'\n")
    return folder


def serve(weir: Starter, site: Path, *arguments: str, **settings) -> Server:
    return weir("app:app", *arguments, cwd=site, **{"reload": True, **settings})


def answers(server: Server, text: str, target: str = "/", status: int = 200) -> float:
    """Wait until `text` is the answer; the seconds that it took. No request may fail on the way."""
    begun = time.monotonic()

    def now() -> bool:
        r = server.get(target, timeout=20)
        return r.status == status and text in r.text

    wait_for(now, 15, f"{text!r} in the answer; the log: {server.log[-3000:]}")
    return time.monotonic() - begun


def replace(path: Path, text: str) -> None:
    """As editors do it: a new file takes the name of the old one."""
    new = path.with_name(path.name + ".new~")
    new.write_text(text)
    new.rename(path)


# ---- a change ----


def test_change_of_a_module_is_in_the_next_answer(weir, site):
    server = serve(weir, site)
    answers(server, "1")
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")
    server.wait_log("part.py has changed: starting again")


def test_time_from_saving_to_the_new_answer(weir, site):
    server = serve(weir, site)
    answers(server, "1")
    times = []
    for i in range(2, 9):  # same size each time, often within the same second
        (site / "part.py").write_text(f"TEXT = '{i}'\n")
        times.append(answers(server, str(i)))
    print(f"median {statistics.median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms")


def test_file_that_takes_the_name_of_the_old_one_counts(weir, site):
    server = serve(weir, site)
    for text in ("2", "3"):
        replace(site / "part.py", f"TEXT = '{text}'\n")
        answers(server, text)


def test_removed_module_is_an_error_and_its_return_the_cure(weir, site):
    server = serve(weir, site)
    (site / "part.py").unlink()
    answers(server, "No module named", status=500)
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")


def test_module_that_was_imported_by_a_request_is_watched(weir, site):
    (site / "lib").mkdir()
    (site / "lib/late.py").write_text("TEXT = 'early'\n")
    server = serve(weir, site, pythonpath="lib")
    answers(server, "early", "/late")
    wait_for(lambda: changes_until(server, site / "lib/late.py", "TEXT = 'later'\n", "later"), 20, "the new text")


def changes_until(server: Server, path: Path, text: str, wanted: str) -> bool:
    """Write until it is seen: a module that a request has imported is known within a second."""
    path.write_text(text)
    return server.get("/late").text == wanted


def test_many_changes_at_once_end_with_the_last(weir, site):
    for i in range(200):
        (site / f"m{i}.py").write_text("x = 0\n")
    (site / "part.py").write_text("TEXT = '0'\n" + "".join(f"import m{i}\n" for i in range(200)))
    server = serve(weir, site)
    answers(server, "0")
    for i in range(200):
        (site / f"m{i}.py").unlink()
        (site / f"m{i}.py").write_text("x = 1\n")
    (site / "part.py").write_text("import m199\nTEXT = 'all %d' % m199.x\n")
    answers(server, "all 1")
    assert "Traceback" not in server.log
    assert server.log.count("starting again") <= 5


def test_nothing_happens_without_a_change(weir, site):
    server = serve(weir, site, log_level="debug")
    server.wait_log("--reload watches")
    (site / "data.db").write_text("not source")
    (site / ".part.py.swp").write_text("an editor's")
    (site / "part.py").open("a").close()
    (site / "part.py").read_text()
    (site / "other.py").write_text("is a change\n")
    log = server.wait_log("starting again")
    assert re.findall(r"(\S+) has changed: starting again", log) == ["other.py"]


def test_template_of_a_loader_counts(weir, site):
    pytest.importorskip("jinja2")
    (site / "views/parts").mkdir(parents=True)
    (site / "views/page.txt").write_text("{% include 'parts/a.txt' %}")
    (site / "views/parts/a.txt").write_text("one")
    (site / "app.py").write_text(
        "import jinja2\n"
        "env = jinja2.Environment(loader=jinja2.FileSystemLoader('views'), auto_reload=False)\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [env.get_template('page.txt').render().encode()]\n")
    server = serve(weir, site)
    answers(server, "one")
    (site / "views/parts/a.txt").write_text("two")
    answers(server, "two")


def test_named_files_and_patterns_count(weir, site):
    (site / "data").mkdir()
    (site / "data/text.sql").write_text("one")
    (site / "part.py").write_text("TEXT = open('data/text.sql').read()\n")
    server = serve(weir, site, reload_extra="data/*.sql")
    answers(server, "one")
    (site / "data/text.sql").write_text("two")
    answers(server, "two")


def test_every_worker_watches(weir, site):
    server = serve(weir, site, workers=2)
    answers(server, "1")
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")
    for _ in range(20):
        assert server.get("/").text == "2"


# ---- clients ----


def test_request_after_the_change_was_noticed_waits_for_the_new_code(weir, site):
    (site / "part.py").write_text("import time\ntime.sleep(0.5)\nTEXT = '1'\n")
    server = serve(weir, site)
    (site / "part.py").write_text("import time\ntime.sleep(0.5)\nTEXT = '2'\n")
    server.wait_log("starting again")
    assert server.get("/").text == "2"


def test_kept_connection_goes_on_with_the_new_code(weir, site):
    server = serve(weir, site)
    c = server.client()
    assert c.get("/").text == "1"
    (site / "part.py").write_text("TEXT = '2'\n")
    server.wait_log("starting again")
    wait_for(lambda: c.get("/").text == "2", 15, "the new answer on the old connection")


def test_request_that_runs_is_finished_by_the_old_code(weir, site):
    server = serve(weir, site)
    c = server.client()
    c.request("GET", "/slow")
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")
    assert c.response().status == 200


# ---- errors ----


def test_syntax_error_is_shown_and_goes_with_the_next_change(weir, site):
    server = serve(weir, site)
    answers(server, "1")
    (site / "part.py").write_text("TEXT = (\n")
    answers(server, "syntax error in part.py, line 1", status=500)
    r = server.get("/any/path", HTML)
    assert r.status == 500 and r.get("content-type") == "text/html; charset=utf-8"
    assert "<title>cannot import" in r.text and "SyntaxError" in r.text and r.get("cache-control") == "no-store"
    server.wait_log("it is loaded again when a file changes")
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")
    assert server.running()


def test_error_at_the_start_is_shown_too(weir, site):
    (site / "part.py").write_text("raise ValueError('at the <start>')\n")
    server = serve(weir, site)
    r = server.get("/", HTML)
    assert r.status == 500 and "ValueError: at the &lt;start&gt;" in r.text and "part.py" in r.text
    (site / "part.py").write_text("TEXT = '1'\n")
    answers(server, "1")


def test_page_of_an_error_is_answered_when_something_changes(weir, site):
    (site / "part.py").write_text("TEXT = (\n")
    server = serve(weir, site)
    page = server.get("/", HTML).text
    token = re.search(r'"Weir-Wait": "(\w+)"', page)[1]
    c = server.client(timeout=60)
    c.request("GET", "/", f"Weir-Wait: {token}")
    assert c.quiet()
    (site / "part.py").write_text("TEXT = '1'\n")
    r = c.response()
    assert r.get("weir-wait") == "over"
    answers(server, "1")


def test_module_that_is_missing_may_come_later(weir, site):
    (site / "app.py").write_text("import helper\n" + APP)
    server = serve(weir, site)
    answers(server, "No module named", status=500)
    (site / "helper.py").write_text("")
    answers(server, "1")


def test_wrong_name_of_the_application_ends_the_start(site):
    r = run("--reload", "--bind", "127.0.0.1:0", "appp:app", cwd=site)
    assert r.returncode == 4 and "there is no module 'appp'" in r.stderr


def test_page_says_nothing_when_tracebacks_are_not_to_be_shown(weir, site):
    (site / "part.py").write_text("raise ValueError('secret')\n")
    server = serve(weir, site, expose_tracebacks=False)
    r = server.get("/", HTML)
    assert r.status == 500 and "secret" not in r.text and "its log says why" in r.text
    assert "secret" in server.log


def test_traceback_of_a_request_is_shown(weir, site):
    server = serve(weir, site)
    assert "RuntimeError: told to the browser" in server.get("/fail").text
    server = serve(weir, site, reload=False)
    assert "told to the browser" not in server.get("/fail").text


# ---- settings ----


def test_changed_settings_are_read_again(weir, site):
    (site / "weir.yaml").write_text("ident: one\n")
    server = serve(weir, site)
    assert server.get("/").get("server") == "one"
    (site / "weir.yaml").write_text("ident: two\n")
    wait_for(lambda: server.get("/").get("server") == "two", 15, "the new Server field")
    (site / "weir.yaml").write_text("identt: three\n")
    server.wait_log("not reloaded: weir.yaml:1:1: 'identt' is no setting; did you mean ident?")
    assert server.get("/").get("server") == "two"
    (site / "weir.yaml").write_text("ident: four\n")
    wait_for(lambda: server.get("/").get("server") == "four", 15, "the new Server field")


def test_settings_may_come_later(weir, site):
    server = serve(weir, site)
    assert server.get("/").get("server") == "weir"
    (site / "weir.yaml").write_text("ident: late\n")
    wait_for(lambda: server.get("/").get("server") == "late", 15, "the new Server field")


@pytest.mark.parametrize("arguments, text", [
    (["--reload", "--workers", "0"], "weir: --workers: reload needs a worker that can be replaced; give workers 1 or more\n")])
def test_reload_needs_a_worker(site, arguments, text):
    r = run(*arguments, "app:app", cwd=site)
    assert (r.returncode, r.stderr) == (2, text)


def test_serve_cannot_reload(site):
    command, env = as_module()
    r = run("-c", "import weir, app; weir.serve(app.app, port=0, reload=True)", cwd=site, command=[command[0]], env=env)
    assert r.returncode == 1 and "reload: a program cannot be restarted from within" in r.stderr


def test_waitress_serve_reloads_with_one_worker(weir, site):
    server = weir("app:app", cwd=site, waitress=True, reload=True)
    answers(server, "1")
    (site / "part.py").write_text("TEXT = '2'\n")
    answers(server, "2")
