"""`make wheel` and `pip install .`: built without network, installed into an environment, used."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from package_helpers import ROOT, certificate, run
from harness import APPS, PYTHON

VERSION = re.search(r'WEIR_VERSION "(.*)"', (ROOT / "src/conf/version.h").read_text())[1]

needs_builder = pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import pip, mesonpy, venv"], capture_output=True).returncode != 0,
    reason="pip, venv or meson-python is not installed")
# Building takes its time on a busy machine.
pytestmark = [needs_builder, pytest.mark.timeout(400)]


def test_the_version_is_the_same_everywhere():
    for file, pattern in (("meson.build", r"version: '(.*?)'"), ("pyproject.toml", r'^version = "(.*)"'),
                          ("python/weir/__init__.py", r'^__version__ = "(.*)"')):
        found = re.search(pattern, (ROOT / file).read_text(), re.M)
        assert found and found[1] == VERSION, file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    said = run(ROOT / "tools/package", "wheel", folder, env={"PYTHON": PYTHON})
    assert "no portable (manylinux) wheel" in said
    (made,) = folder.glob("*.whl")
    assert str(made) in said
    return made


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheel) -> Path:
    """A virtual environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    run(PYTHON, "-m", "venv", folder)
    run(folder / "bin/pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", wheel)
    return folder


def test_the_name_tells_for_which_interpreter(wheel):
    tag = subprocess.run([PYTHON, "-c", "import sys; print('cp%d%d' % sys.version_info[:2])"], text=True,
                         capture_output=True, check=True).stdout.strip()
    assert re.fullmatch(rf"weir-{re.escape(VERSION)}-{tag}-{tag}-linux_\w+\.whl", wheel.name)


def test_everything_that_runs_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = {re.sub(r"^weir-[^/]*\.data/(data|scripts)/", "", n) for n in z.namelist()}
    package = {f"weir/{p.name}" for p in (ROOT / "python/weir").iterdir() if p.suffix in (".py", ".pyi", ".typed")}
    built = {f"weir/{p.name}" for p in (ROOT / "build/python/weir").glob("*.so")}
    assert built and not (package | built) - names
    assert {"share/man/man1/weir.1", "share/bash-completion/completions/weir.bash"} <= names


def test_no_library_of_the_builder_is_named_by_path(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as z:
        z.extractall(tmp_path)
    for shared in tmp_path.rglob("*.so"):
        assert not re.search("RPATH|RUNPATH", run("readelf", "-d", shared))
        assert "not found" not in run("ldd", shared)


def test_the_command_tells_its_version(environment):
    assert run(environment / "bin/weir", "--version") == f"weir {VERSION}\n"


def test_the_installed_command_serves(environment, weir):
    server = weir(command=[str(environment / "bin/weir"), "--bind", "127.0.0.1:0", "basic:app"], cwd=APPS)
    assert server.get("/").status == 200
    assert server.get("/-/ping").body == b"pong\n"


def test_the_installed_command_serves_tls(environment, weir, tmp_path):
    """_tls.so is found beside the extension."""
    server = weir(command=[str(environment / "bin/weir"), "--bind", "127.0.0.1:0", *certificate(tmp_path), "basic:app"], cwd=APPS)
    assert run("curl", "-sSk", f"https://127.0.0.1:{server.port}/-/ping") == "pong\n"


def test_the_installed_module_serves(environment, weir):
    program = ("from weir import serve\n"
               "def app(environ, start):\n"
               "    start('200 OK', [('Content-Type', 'text/plain')])\n"
               "    return [b'from the wheel']\n"
               "serve(app, listen='127.0.0.1:0', threads=2)\n")
    server = weir(command=[str(environment / "bin/python"), "-c", program], cwd=environment)
    assert server.get("/").body == b"from the wheel"


def test_the_installed_files_are_those_of_the_wheel(environment):
    listed = run(environment / "bin/pip", "show", "--files", "weir")
    assert "../../../share/man/man1/weir.1" in listed and "../../../bin/weir" in listed
    assert (environment / "share/man/man1/weir.1").read_text().startswith(".\\\"")


def test_pip_install_of_the_source_works_as_the_readme_says(tmp_path):
    """The commands of README.md, in a copy of the source; unoptimised, because that is sooner done."""
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^((?:python3 -m venv|\.venv/bin/pip) .*)$", text, re.M)
    assert [c.split()[0] for c in commands] == ["python3", ".venv/bin/pip"]
    run(ROOT / "tools/package", "source", tmp_path / "weir")
    for command in commands:
        run("/bin/sh", "-ec", command, cwd=tmp_path / "weir",
            env={"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_CONFIG_SETTINGS": "setup-args=-Doptimization=0"})
    assert run(tmp_path / "weir/.venv/bin/weir", "--version") == f"weir {VERSION}\n"
    assert run(tmp_path / "weir/.venv/bin/python", "-c", "from weir import serve; print(serve.__name__)",
               cwd=tmp_path) == "serve\n"
