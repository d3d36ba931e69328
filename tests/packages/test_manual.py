"""The manual page and the completions: what the shells and the roff formatters make of them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEIR = ROOT / "build" / "weir"

pytestmark = pytest.mark.skipif(not WEIR.exists(), reason="build/weir is missing")


def needs(program: str):
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def dump(which: str) -> str:
    return subprocess.run([WEIR, "--dump-reference", which], text=True, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    for which, name in (("man", "weir.1"), ("bash", "weir.bash"), ("zsh", "_weir"), ("fish", "weir.fish")):
        (folder / name).write_text(dump(which))
    return folder


def rows(name: str) -> set[str]:
    text = (ROOT / "src/conf" / name).read_text()
    found = set(re.findall(r'^(?:SETTING\(\w+, \w+, |WAITRESS\()"([^"]+)"', text, re.M)) - {"sockets"}
    assert len(found) > 30
    return found


def gunicorn() -> set[str]:
    """The long options of Gunicorn."""
    text = (ROOT / "src/conf/gunicorn.def").read_text()
    flags = re.findall(r'^GUNICORN\(\w+, "([^"]*)"', text, re.M)
    found = {flag[2:] for row in flags for flag in row.split(",") if flag.startswith("--")}
    assert len(found) > 60
    return found


# ---- the page ----


@pytest.fixture(scope="module")
def page(written) -> str:
    """The text that `man` shows, without a line's end inside a word."""
    run = subprocess.run(["groff", "-ww", "-man", "-Tascii", "-P-cbou", written / "weir.1"], text=True,
                         capture_output=True)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@needs("groff")
def test_the_page_is_clean_roff(page):
    assert page.startswith("WEIR(1)")
    for heading in ("NAME", "SYNOPSIS", "OPTIONS", "WAITRESS-SERVE", "GUNICORN", "HEALTHCHECK", "STATUS", "STACKS", "FILES", "ENVIRONMENT", "SIGNALS", "EXIT STATUS"):
        assert re.search(rf"^{heading}$", page, re.M), heading


@needs("man")
def test_man_shows_the_page_without_a_warning(written):
    run = subprocess.run(["man", "--warnings", "-l", written / "weir.1"], text=True, capture_output=True,
                         env={**os.environ, "MANWIDTH": "80", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"})
    assert (run.returncode, run.stderr) == (0, "")
    assert "weir waitress-serve [options]" in run.stdout


@needs("lexgrog")
def test_the_page_can_be_found_by_apropos(written):
    run = subprocess.run(["lexgrog", written / "weir.1"], text=True, capture_output=True)
    assert '"weir - production WSGI server for Python web applications"' in run.stdout


@needs("groff")
def test_every_option_has_its_entry_in_the_page(page):
    entries = set(re.findall(r"^ +(?:-\w, )?--([a-z][a-z0-9_-]*)", page, re.M))
    assert not rows("settings.def") - entries
    assert not rows("waitress.def") - entries
    assert not gunicorn() - entries
    assert "-b, --bind ADDRESS" in page and "--factory, --no-factory" in page
    assert "--dump-reference" not in page


def test_what_is_special_to_roff_is_text_in_the_page(written):
    first, text = (written / "weir.1").read_text().split("\n", 1)
    assert first.startswith('.\\"') and "`" not in text
    requests = set(re.findall(r"^[.'](\S+)", text, re.M))
    assert requests <= {"TH", "SH", "SS", "TP", "PP", "B", "BR", "I", "br", "nh", '\\"'}
    assert not re.search(r"(?<!\\)--", text)


def test_what_texts_name_is_told_of_options_that_exist(written):
    """The table of names in manual.c."""
    source = (ROOT / "src/conf/manual.c").read_text()
    told = set(re.findall(r'\{"([a-z-]+)", VALUE_', source))
    assert len(told) > 15
    assert not told - set(re.findall(r"--([a-z][a-z-]*)", (written / "weir.bash").read_text()))


# ---- bash ----


def bash(written: Path, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = (f'source "{written}/weir.bash"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              '_weir weir; printf "%s\\n" "${COMPREPLY[@]}"')
    run = subprocess.run(["bash", "--norc", "-uc", script, "weir", *words], text=True, capture_output=True,
                         cwd=folder, check=True)
    assert run.stderr == ""
    return [line for line in run.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "shop.py").touch()
    (tmp_path / "shelf").mkdir()
    (tmp_path / "a file.env").touch()
    return tmp_path


def test_bash_completes_options(written, folder):
    assert bash(written, folder, "weir", "--log-l") == ["--log-level"]
    assert bash(written, folder, "weir", "--no-pre") == ["--no-preload"]
    every = bash(written, folder, "weir", "--")
    assert not {f"--{name}" for name in rows("settings.def")} - set(every)
    assert len(every) == len(set(every)) and "--no-bind" not in every


def test_bash_completes_values(written, folder):
    levels = ["debug", "info", "warning", "error", "critical"]
    assert bash(written, folder, "weir", "--log-level", "") == levels
    assert bash(written, folder, "weir", "--log-level", "=") == levels
    assert bash(written, folder, "weir", "--log-level", "=", "w") == ["warning"]
    assert bash(written, folder, "weir", "--env-file", "a") == ["a file.env"]
    assert bash(written, folder, "weir", "--chdir", "sh") == ["shelf"]
    assert "root" in bash(written, folder, "weir", "--user", "ro")
    assert bash(written, folder, "weir", "--bind", "sh") == []
    assert bash(written, folder, "weir", "-b", "sh") == []


def test_bash_completes_the_application_and_the_words(written, folder):
    assert bash(written, folder, "weir", "sh") == ["shop:"]
    assert bash(written, folder, "weir", "--preload", "sh") == ["shop:"]
    assert bash(written, folder, "weir", "shop", ":", "") == []
    assert bash(written, folder, "weir", "wait") == ["waitress-serve"]
    assert bash(written, folder, "weir", "--preload", "wait") == []
    assert bash(written, folder, "weir", "--app", "sh") == ["shop:"]


def test_bash_completes_other_command_lines(written, folder):
    offered = bash(written, folder, "weir", "waitress-serve", "--")
    assert not {f"--{name}" for name in rows("waitress.def")} - set(offered)
    assert "--preload" not in offered and "--call" in offered
    assert bash(written, folder, "weir", "waitress-serve", "--unix-socket", "a") == ["a file.env"]
    offered = bash(written, folder, "weir", "gunicorn", "--")
    assert not {f"--{name}" for name in gunicorn()} - set(offered)
    assert sorted(bash(written, folder, "weir", "gunicorn", "-c", "sh")) == ["shelf", "shop.py"]
    assert bash(written, folder, "weir", "gunicorn", "--header-map", "d") == ["drop", "dangerous"]
    assert bash(written, folder, "weir", "healthcheck", "--") == ["--help", "--timeout"]
    assert bash(written, folder, "weir", "healthcheck", "sh") == []
    assert bash(written, folder, "weir", "sta") == ["status", "stacks"]
    assert bash(written, folder, "weir", "status", "--sort", "r") == ["route"]
    assert set(bash(written, folder, "weir", "status", "--")) - set(bash(written, folder, "weir", "stacks", "--")) == {
        "--once", "--sort", "--rows"}
    assert bash(written, folder, "weir", "stacks", "--admin-token-file", "a") == ["a file.env"]


# ---- zsh ----


@needs("zsh")
def test_zsh_takes_the_completion(written):
    run = subprocess.run(["zsh", "-fn", written / "_weir"], text=True, capture_output=True)
    assert (run.returncode, run.stderr) == (0, "")


class Terminal:
    """zsh at a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(shutil.which("zsh") or "", ["zsh", "-f", "-i"],
                      {"PATH": "/usr/bin:/bin", "TERM": "dumb", "HOME": str(folder), "COLUMNS": "200"})
        self.seen = ""

    def type(self, text: str, wanted: str) -> str:
        """Type, and wait until `wanted` is there; returns what came."""
        self.seen = ""
        os.write(self.fd, text.encode())
        until = time.monotonic() + 20
        while not re.search(wanted, self.seen):
            left = until - time.monotonic()
            assert left > 0 and select.select([self.fd], [], [], left)[0], f"no {wanted!r} in {self.seen!r}"
            self.seen += os.read(self.fd, 65536).decode(errors="replace")
        return self.seen

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@needs("zsh")
def test_zsh_completes_options_values_and_words(written, folder):
    zsh = Terminal(folder)
    try:
        zsh.type(f"fpath=({written} $fpath); autoload -U compinit; compinit -u -D; print ready-$((1 + 1))\n", "ready-2")
        zsh.type("weir --log-lev\t", r"--log-level=")
        zsh.type("w\t", r"warning")
        zsh.type("\x15weir --chdir sh\t", r"shelf")
        zsh.type("\x15weir wai\t", r"waitress-serve ")
        zsh.type("--channel-t\t", r"--channel-timeout=")
        zsh.type("\x15weir sho\t", r"shop:")
    finally:
        zsh.end()


# ---- fish ----


@needs("fish")
def test_fish_completes_options_values_and_words(written, folder):
    def fish(line: str) -> list[str]:
        script = f'source "{written}/weir.fish"; complete -C "{line}"'
        run = subprocess.run(["fish", "--no-config", "-c", script], text=True, capture_output=True, cwd=folder,
                             env={"PATH": "/usr/bin:/bin", "HOME": str(folder)})
        assert (run.returncode, run.stderr) == (0, "")
        return [entry.split("\t")[0] for entry in run.stdout.splitlines()]

    assert fish("weir --log-le") == ["--log-level"]
    assert fish("weir --log-level w") == ["warning"]
    assert fish("weir sh") == ["shop:"]
    assert "waitress-serve" in fish("weir w")
    assert fish("weir waitress-serve --channel-t") == ["--channel-timeout"]
    assert fish("weir --channel-t") == []
    assert not {f"--{name}" for name in rows("settings.def")} - set(fish("weir --"))
