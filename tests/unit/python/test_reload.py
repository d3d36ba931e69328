"""What --reload watches, and the page that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import types

import pytest
from conftest import ROOT

from weir import _reload


def config(**settings):
    return types.SimpleNamespace(**{"reload_extra": [], **settings})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_reload, "_imported", {})
    return tmp_path


def files_of(folder, monkeypatch, *modules, **settings):
    """Files with these paths as the only modules that are imported."""
    made = {}
    for i, name in enumerate(modules):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made["m%d" % i] = types.SimpleNamespace(__file__=str(path))
    monkeypatch.setattr(_reload.sys, "modules", made)
    files = _reload.Files(config(**settings), [])
    files.collect()
    return files


def test_modules_and_their_neighbours_count(folder, monkeypatch):
    (folder / "pkg").mkdir()
    (folder / "pkg/conf.yaml").touch()
    files = files_of(folder, monkeypatch, "app.py", "pkg/part.py")
    assert {str(folder / n) for n in ("app.py", "pkg/part.py", "pkg/conf.yaml", ".env")} <= set(files.stamps)
    for name in ("part.py", "new.py", "conf.yaml", "page.html"):
        assert files.counts(str(folder / "pkg"), name)
    for name in ("data.db", "app.log", "part.py~", ".part.py.swp", "#part.py#", "4913", "part.pyc", ".hidden.py"):
        assert not files.counts(str(folder / "pkg"), name)
    assert files.counts(str(folder), ".env")
    assert not files.counts(str(folder / "pkg"), ".env")


def test_everything_in_a_folder_of_templates_counts(folder, monkeypatch):
    (folder / "pkg/templates/mail").mkdir(parents=True)
    (folder / "pkg/templates/mail/text.txt").touch()
    files = files_of(folder, monkeypatch, "pkg/part.py")
    assert str(folder / "pkg/templates/mail/text.txt") in files.stamps
    assert files.counts(str(folder / "pkg/templates/mail"), "other.txt")
    assert not files.counts(str(folder / "pkg/templates/mail"), ".other.txt.swp")
    assert not files.counts(str(folder / "pkg/templates"), "mail")


def test_installed_packages_do_not_count(folder, monkeypatch):
    monkeypatch.setattr(_reload, "foreign_folders", lambda: (str(folder / "lib") + os.sep,))
    files = files_of(folder, monkeypatch, "app.py", "lib/other.py")
    assert str(folder / "lib/other.py") not in files.stamps
    assert str(folder / "lib") not in files.folders()
    assert str(folder / "app.py") in files.stamps


def test_python_and_weir_are_foreign():
    foreign = _reload.foreign_folders()
    assert os.path.abspath(os.__file__).startswith(foreign)
    assert os.path.abspath(_reload.__file__).startswith(foreign)
    assert not "/srv/app/x.py".startswith(foreign)


def test_extra_files_folders_and_patterns_count(folder, monkeypatch):
    (folder / "data/deep").mkdir(parents=True)
    (folder / "data/deep/a.sql").touch()
    (folder / "words").mkdir()
    (folder / "words/en.txt").touch()
    files = files_of(folder, monkeypatch, "app.py", reload_extra=["data/**/*.sql", "words", "none.cfg"])
    assert {str(folder / n) for n in ("data/deep/a.sql", "words/en.txt", "none.cfg")} <= set(files.stamps)
    assert files.counts(str(folder / "data/deep"), "new.sql")
    assert not files.counts(str(folder / "data/deep"), "new.txt")
    assert files.counts(str(folder / "words"), "new.txt")
    assert {str(folder / n) for n in ("data", "data/deep", "words")} <= files.folders()


def test_loaders_of_jinja_tell_their_folders(folder, monkeypatch):
    jinja2 = pytest.importorskip("jinja2")
    (folder / "pages").mkdir()
    (folder / "pages/a.txt").touch()
    loader = jinja2.FileSystemLoader(["pages"])
    assert str(folder / "pages") in set(_reload.template_folders())
    del loader


def test_change_is_a_difference_to_what_was_imported(folder, monkeypatch):
    files = files_of(folder, monkeypatch, "app.py", "other.py")
    path, new = str(folder / "app.py"), str(folder / "new.py")
    assert files.changed(files.stamps) == []
    os.utime(path, ns=(1, 1))
    assert files.changed(files.stamps) == [path]
    files.collect()
    assert files.changed(files.stamps) == [path]
    os.unlink(path)
    assert files.changed(files.stamps) == [path]
    assert files.changed([new]) == []  # came and went
    (folder / "new.py").touch()
    assert files.changed([new]) == [new]


def test_file_that_changed_while_it_was_imported_counts_as_changed(folder, monkeypatch):
    (folder / "app.py").touch()
    _reload._imported[str(folder / "app.py")] = (1, 1, 1)
    files = files_of(folder, monkeypatch, "app.py")
    assert files.changed(files.stamps) == [str(folder / "app.py")]


def test_source_that_could_not_be_imported_is_watched(folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub/broken.py").write_text("(")
    _reload._imported[str(folder / "sub/broken.py")] = _reload.stamp(str(folder / "sub/broken.py"))
    files = files_of(folder, monkeypatch)
    assert str(folder / "sub/broken.py") in files.stamps and files.counts(str(folder / "sub"), "new.py")


def test_bytecode_of_a_young_source_is_not_kept(tmp_path):
    program = (
        "import sys; sys.path[:0] = [%r, %r]; from weir import _reload; _reload.install(); import young, old; "
        "print(young.x, old.x, len(_reload._imported))" % (str(ROOT / "python"), str(tmp_path)))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run():
        return subprocess.run([sys.executable, "-c", program], env=env, text=True, check=True,
                              capture_output=True).stdout.split()

    (tmp_path / "old.py").write_text("x = 1\n")
    os.utime(tmp_path / "old.py", (time.time() - 60, time.time() - 60))
    for value in ("1", "2", "3"):  # same size, same second: only the content tells
        (tmp_path / "young.py").write_text("x = %s\n" % value)
        assert run()[:2] == [value, "1"]
    assert [p.name.split(".")[0] for p in (tmp_path / "__pycache__").iterdir()] == ["old"]


# ---- the page ----


def answer(app, **environ):
    said = []
    body = b"".join(app({k.upper(): v for k, v in environ.items()}, lambda *a: said.append(a)))
    status, fields = said[0]
    return status, dict(fields), body.decode()


def test_page_shows_what_happened_and_escapes_it():
    app = _reload.Failure("cannot import '<x>'", "Traceback <b>", True)
    status, fields, body = answer(app, http_accept="text/html,*/*")
    assert status.startswith("500") and fields["Content-Type"].startswith("text/html")
    assert "cannot import &#x27;&lt;x&gt;&#x27;" in body and "Traceback &lt;b&gt;" in body and "<b>" not in body
    status, fields, body = answer(app)
    assert fields["Content-Type"].startswith("text/plain") and body == "cannot import '<x>'\n\nTraceback <b>"


def test_page_tells_nothing_where_tracebacks_are_not_to_be_shown():
    body = answer(_reload.Failure("line", "details", False), http_accept="text/html")[2]
    assert "details" not in body and "its log says why" in body


def test_page_that_waits_is_answered_when_something_changed():
    app = _reload.Failure("line", "details", True)
    threading.Timer(0.05, app.over.set).start()
    begun = time.monotonic()
    _, fields, body = answer(app, http_weir_wait=app.token)
    assert (fields["Weir-Wait"], body) == ("over", "") and time.monotonic() - begun < 20
    assert "Weir-Wait" not in answer(app, http_weir_wait="another page's")[1]
