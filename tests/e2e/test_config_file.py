"""weir.yaml: found, read and explained by real processes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from harness import PATIENCE, wait_for, weir_command
from test_command_line import as_module, run

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/env":
        return [" ".join(os.environ.get(n, "-") for n in ("ONE", "TWO", "THREE")).encode()]
    return [os.getcwd().encode()]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "where.py").write_text(APP)
    return tmp_path


def test_file_of_the_folder_alone_starts_the_server(weir, folder):
    (folder / "weir.yaml").write_text(
        "app: where:app\nbind: 127.0.0.1:0\nthreads: 3\nident: from yaml\naccess-log: access.log\n")
    server = weir(command=weir_command(), cwd=folder)
    r = server.get("/")
    assert r.text == str(folder) and r.get("server") == "from yaml"
    assert "(workers 1, threads 3:3, " in server.log
    wait_for(lambda: "GET / " in (folder / "access.log").read_text(), what="an access line")


def test_file_is_read_in_the_folder_of_chdir_and_its_paths_are_relative_to_it(weir, folder):
    sub = folder / "sub"
    sub.mkdir()
    (sub / "where.py").write_text(APP)
    (folder / "weir.yaml").write_text("threads: nonsense\n")
    (sub / "weir.yaml").write_text("access-log: access.log\n")
    server = weir("where:app", cwd=folder, chdir="sub")
    assert server.get("/").text == str(sub)
    wait_for(lambda: (sub / "access.log").read_text(), what="an access line")


def test_options_and_variables_are_stronger(weir, folder):
    (folder / "weir.yaml").write_text("bind: 127.0.0.1:1\nthreads: 3\nident: yaml\n")
    server = weir("where:app", cwd=folder, threads=5, env={"WEIR_IDENT": "variable"})
    assert server.get("/").get("server") == "variable"
    assert "(workers 1, threads 4:5, " in server.log


def test_env_reaches_the_application_and_overrides(weir, folder):
    (folder / "weir.yaml").write_text("env:\n  ONE: 1 and more\n  TWO: 2\nenv-file: vars\n")
    (folder / "vars").write_text("TWO=file\nTHREE=file\n")
    server = weir("where:app", cwd=folder, env={"ONE": "outside", "TWO": "outside"})
    assert server.get("/env").text == "1 and more 2 file"
    r = run("--check-config", "--env", "=x", "where:app", cwd=folder)
    assert (r.returncode, r.stderr) == (2, "weir: --env: '=x' is not NAME=VALUE\n")


def test_waitress_serve_reads_it(weir, folder):
    (folder / "weir.yaml").write_text("app: where:app\nbind: 127.0.0.1:0\nident: yaml\n")
    server = weir(command=[*weir_command(), "waitress-serve"], cwd=folder)
    assert server.get("/").get("server") == "yaml"


def test_serve_reads_it_only_where_it_is_named(weir, folder):
    command, env = as_module()
    (folder / "weir.yaml").write_text("ident: yaml\n")
    for more, ident in (("", "waitress"), (", config='weir.yaml'", "yaml")):
        program = f"import weir, where; weir.serve(where.app, port=0, host='127.0.0.1'{more})"
        server = weir(command=[command[0], "-c", program], env=env, cwd=folder)
        assert server.get("/").get("server") == ident


@pytest.mark.parametrize("native", [True, False])
def test_wrong_file_is_one_line_with_its_place(folder, native):
    command, env = (weir_command(), {}) if native else as_module()
    (folder / "weir.yaml").write_text("threads: 4\nmax-body: 3\n")
    for option in ("--check-config", "--print-config", "--threads=4"):
        r = run(option, "where:app", cwd=folder, command=command, env=env)
        assert (r.returncode, r.stdout) == (2, "")
        assert r.stderr == "weir: weir.yaml:2:1: 'max-body' is no setting; did you mean max-body-size?\n"


def test_right_file_is_checked_and_its_places_are_printed(folder):
    (folder / "my.yaml").write_text("# first line\nthreads: 7\n")
    r = run("--check-config", "-c", "my.yaml", "where:app", cwd=folder)
    assert (r.returncode, r.stderr) == (0, "")
    r = run("--print-config", "-cmy.yaml", cwd=folder)
    assert re.search(r"^threads = 4:7 +# my\.yaml:2$", r.stdout, re.M)
    assert re.search(r"^config = my\.yaml +# -c$", r.stdout, re.M)


def test_file_that_cannot_be_read_is_told(folder):
    r = run("-c", "none.yaml", "where:app", cwd=folder)
    assert r.returncode == 2
    assert r.stderr == "weir: -c: cannot read 'none.yaml': No such file or directory\n"


def test_pipe_that_nobody_writes_does_not_hang_the_start(folder):
    subprocess.run(["mkfifo", folder / "weir.yaml"], check=True)
    r = run("--print-config", cwd=folder, timeout=10 * PATIENCE)
    assert r.returncode == 0
