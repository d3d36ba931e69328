"""Build the harnesses once a session, from the sources as they are, and import them."""

import importlib.util
import os
import pathlib
import shlex
import subprocess
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BASE = ("arena", "buf", "err", "json", "log", "must", "peek", "secret", "source", "tasks")


def compile_module(folder, name, sources):
    target = folder / f"{name}.so"
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=c17", "-D_GNU_SOURCE", "-shared", "-fPIC",
               "-fvisibility=hidden", "-O1", "-g", *shlex.split(os.environ.get("WSGI_CFLAGS", "")),
               f"-I{ROOT}/src", "-isystem", sysconfig.get_paths()["include"],
               *map(str, sources), "-lpthread", "-o", str(target)]
    subprocess.run(command, check=True)
    spec = importlib.util.spec_from_file_location(name, target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def base(*names):
    return [ROOT / f"src/base/{name}.c" for name in names]


@pytest.fixture(scope="session")
def harness(tmp_path_factory):
    return compile_module(tmp_path_factory.mktemp("wsgi"), "wsgi_harness", [
        ROOT / "tests/unit/wsgi/wsgi_harness.c", *sorted((ROOT / "src/wsgi").glob("*.c")),
        ROOT / "src/handler/date.c", ROOT / "src/handler/reply.c", ROOT / "src/http/h1_parse.c",
        ROOT / "src/obs/trace.c", ROOT / "src/serve/identity.c", *base(*BASE)])


def build_stacks(folder):
    return compile_module(folder, "stacks_harness", [
        ROOT / "tests/unit/wsgi/stacks_harness.c", ROOT / "src/wsgi/frames.c", ROOT / "src/wsgi/stacks.c",
        *base("arena", "buf", "json", "json_read", "must", "peek", "source", "tasks")])


@pytest.fixture(scope="session")
def stacks(tmp_path_factory):
    return build_stacks(tmp_path_factory.mktemp("stacks"))
