"""deploy/docker: no image is built here, so each line of the Dockerfile is executed in a Debian of its own.

RUN and COPY are executed in the order of the file, in a root that stands in for the base image; then the entry
point and the health check run with the environment, the user and the folder that the file sets, above a file
system that is read-only as in compose.yaml.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import roots
import yaml
from package_helpers import ROOT, run
from harness import Client, wait_for

FOLDER = ROOT / "deploy/docker"
BASE = "python:3.11-slim-bookworm"
VERSION = re.search(r'WEIR_VERSION "(.*)"', (ROOT / "src/conf/version.h").read_text())[1]

pytestmark = pytest.mark.timeout(400)


@dataclass
class Stage:
    name: str
    lines: list[tuple[str, str]] = field(default_factory=list)  # ("RUN", "apt-get …")

    def last(self, word: str) -> str:
        found = [rest for name, rest in self.lines if name == word]
        assert found, f"no {word}"
        return found[-1]

    def words(self, word: str) -> list[str]:
        """The JSON form, which needs no shell."""
        return json.loads(self.last(word))


def parse(path: Path) -> dict[str, Stage]:
    """Only the instructions that are known here: another one must be thought about."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M)
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "ARG" and stage is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            image, _, name = rest.partition(" AS ")
            assert re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], image) == BASE
            stage = stages[name] = Stage(name)
        else:
            assert word in {"RUN", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
            assert stage
            stage.lines.append((word, rest))
    return stages


STAGES = parse(FOLDER / "Dockerfile")


def ignored(name: str, patterns: list[str]) -> bool:
    """Of .dockerignore: the last pattern that matches the path or a folder above it decides."""
    result = False
    parts = name.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    for pattern in patterns:
        keep = pattern.startswith("!")
        wanted = pattern.lstrip("!")
        if wanted.startswith("**/"):
            matches = any(fnmatch.fnmatch(p, wanted[3:]) for p in parts)
        else:
            matches = any(p.count("/") == wanted.count("/") and fnmatch.fnmatch(p, wanted) for p in above)
        if matches:
            result = not keep
    return result


def context() -> list[str]:
    """The files that a builder is sent."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    listed = subprocess.run(["find", ".", "-type", "f", "-not", "-path", "./.git/*", "-not", "-path", "./build*"], cwd=ROOT,
                            text=True, capture_output=True, check=True).stdout
    return [name for name in (line[2:] for line in listed.splitlines()) if not ignored(name, patterns)]


def test_the_builder_is_sent_the_source_and_nothing_else():
    names = context()
    assert {"meson.build", "src/main.c", "python/weir/__init__.py", "tools/sources"} <= set(names)
    assert not [n for n in names if n.startswith(("docs", "bench", "examples", "build", "dist", ".")) or "__pycache__" in n]
    assert sum((ROOT / n).stat().st_size for n in names) < 8 << 20


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell():
    stage = STAGES["runtime"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", stage.last("USER")), "a number, so that runAsNonRoot can be checked"
    assert stage.words("ENTRYPOINT") == ["weir"]
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert re.search(r'CMD \["weir", "healthcheck"\]$', stage.last("HEALTHCHECK"))
    assert f"PORT={stage.last('EXPOSE')}" in stage.last("ENV")
    assert stage.lines.index(("USER", stage.last("USER"))) > max(i for i, (w, _) in enumerate(stage.lines) if w == "RUN")


def test_no_compiler_and_no_source_is_in_the_image():
    stage = STAGES["runtime"]
    for word, rest in stage.lines:
        if word == "COPY":
            assert rest == "--from=build /wheels /wheels"
        assert not re.search(r"-dev\b|gcc|meson|build-essential", rest)


def test_runtime_libraries_are_those_of_the_debian_package():
    """One of them forgotten would be an import that fails in production alone."""
    packages = set(re.findall(r"\blib[\w.-]+", STAGES["runtime"].lines[0][1]))
    linked = set()
    for shared in (ROOT / "build/python/weir").glob("*.so"):
        linked |= set(re.findall(r"\(NEEDED\).*\[(\S+)\]", run("readelf", "-d", shared)))
    owners = {"libuv.so.1": "libuv1", "libyaml-0.so.2": "libyaml-0-2", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3",
              "libjansson.so.4": "libjansson4", "libsqlite3.so.0": "libsqlite3-0", "libcurl.so.4": "libcurl4"}
    system = re.compile(r"lib(c|m)\.so|ld-linux")
    assert {owners[name] for name in linked if not system.match(name)} == packages


def test_compose_is_closed_and_leaves_time_to_stop():
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["app"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [t for t in service["tmpfs"] if t.startswith("/tmp")]
    assert service["healthcheck"]["test"] == ["CMD", "weir", "healthcheck"]
    seconds = lambda text: int(re.fullmatch(r"(\d+)s", text)[1])  # noqa: E731
    assert seconds(service["stop_grace_period"]) > seconds(service["environment"]["WEIR_GRACE"])
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == FOLDER / "Dockerfile"
    assert (FOLDER / service["volumes"][0].split(":")[0] / "app.py").exists()
    # The store of quotas is on a volume.
    assert f"WEIR_STORE={service['volumes'][1].split(':')[1]}/weir.db" in STAGES["runtime"].last("ENV")
    known = set(re.findall(r'^SETTING\(\w+, \w+, "([^"]+)"', (ROOT / "src/conf/settings.def").read_text(), re.M))
    for name in service["environment"]:
        assert name.removeprefix("WEIR_").lower().replace("_", "-") in known


# ---- executed ----


class Built:
    """A stage after its lines."""

    def __init__(self, stage: Stage, root: roots.Root, others: dict[str, Built]) -> None:
        self.root = root
        self.env: dict[str, str] = {}
        self.folder = "/"
        self.user = ""
        for word, rest in stage.lines:
            if word == "RUN":
                root.run("/bin/sh", "-c", rest, env=self.env, cwd=self.folder, user=self.user)
            elif word == "COPY":
                self.copy(rest, others)
            elif word == "WORKDIR":
                self.folder = rest
                (root / rest).mkdir(parents=True, exist_ok=True)
            elif word == "ENV":
                self.env.update(pair.split("=", 1) for pair in shlex.split(rest))
            elif word == "USER":
                self.user = rest

    def copy(self, rest: str, others: dict[str, Built]) -> None:
        *options, source, target = rest.split()
        if options:
            (origin,) = (o.removeprefix("--from=") for o in options)
            shutil.copytree(others[origin].root / source, self.root / target)
            return
        assert source == "."
        for name in context():
            to = self.root / target / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to)

    def command(self, words: list[str], env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        return (self.root.command(words, user=self.user, cwd=self.folder, read_only=True),
                roots.environment({**self.env, **env}))


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("image")
    built: dict[str, Built] = {}
    try:
        for stage in STAGES.values():
            built[stage.name] = Built(stage, roots.base().copy(folder / stage.name), built)
        yield built["runtime"]
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(image, tmp_path_factory) -> Iterator[tuple[subprocess.Popen, int, Path]]:
    """The image with the example in it, started as compose.yaml does; its process, port and log."""
    shutil.copy(ROOT / "examples/hello/app.py", image.root / image.folder)
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["app"]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = tmp_path_factory.mktemp("container") / "log"
    words = [*STAGES["runtime"].words("ENTRYPOINT"), *service["command"]]
    command, env = image.command(words, {**service["environment"], "PORT": str(port)})
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for(lambda: "serving" in log.read_text() or process.poll() is not None, 20)
        assert process.poll() is None, log.read_text()
        yield process, port, log
    finally:
        process.kill()
        process.wait()


@roots.usable
def test_the_image_tells_its_version(image):
    command, env = image.command([*STAGES["runtime"].words("ENTRYPOINT"), "--version"], {})
    assert run(*command, env=env) == f"weir {VERSION}\n"
    command, env = image.command([*STAGES["runtime"].words("ENTRYPOINT"), *STAGES["runtime"].words("CMD")], {})
    assert "Usage: weir" in run(*command, env=env)


@roots.usable
def test_the_image_is_small_and_has_no_compiler(image):
    assert not list((image.root / "usr/bin").glob("*gcc*")) and not (image.root / "src").exists()
    assert not (image.root / "wheels").exists()


@roots.usable
def test_every_library_that_is_loaded_later_finds_its_own(image):
    """TLS, tokens and the keeper: with all symbols, so that a package that is missing shows here."""
    load = ("import ctypes, os, pathlib, weir; made = [p for p in pathlib.Path(weir.__file__).parent.glob('_*.so') "
            "if not p.name.startswith('_core')]; [ctypes.CDLL(str(p), os.RTLD_NOW) for p in made]; "
            "print(*sorted(p.name.split('.')[0] for p in made))")
    command, env = image.command(["python", "-c", load], {})
    assert run(*command, env=env) == "_jwt _keeper _tls\n"


@roots.usable
def test_the_container_serves(container):
    _, port, _ = container
    with Client(("127.0.0.1", port)) as c:
        assert c.get("/").text == "Hello from Weir\n"


@roots.usable
def test_the_container_is_process_one_and_not_root(container):
    process, _, _ = container
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    status = Path(f"/proc/{child}/status").read_text()
    assert re.search(r"^NSpid:\s+\d+\s+1$", status, re.M), "no shell stays above it"
    assert re.search(r"^Uid:\s+10001\s", status, re.M) and re.search(r"^Gid:\s+10001\s", status, re.M)


@roots.usable
def test_the_health_check_tells_a_server_from_none(image, container):
    _, port, _ = container
    words = json.loads(re.search(r"CMD (\[.*\])$", STAGES["runtime"].last("HEALTHCHECK"))[1])
    command, env = image.command(words, {"PORT": str(port)})
    assert run(*command, env=env).startswith("weir: healthy")
    command, env = image.command(words, {"PORT": "1"})
    done = subprocess.run(command, env=env, text=True, capture_output=True)
    assert done.returncode == 1 and done.stderr.startswith("weir: unhealthy")


@roots.usable
def test_the_container_stops_in_order(container):
    """The last one."""
    process, _, log = container
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
    subprocess.run(["kill", f"-{signal.SIGTERM}", child], check=True)
    assert process.wait(30) == 0
    assert "Traceback" not in log.read_text() and "GET / " in log.read_text()
