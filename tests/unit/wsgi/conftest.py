"""Build the harness once a session, from the sources as they are, and import it."""

import importlib.util
import os
import pathlib
import shlex
import subprocess
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BASE = ("arena", "buf", "err", "log", "must", "secret")


def build(folder):
    sources = [ROOT / "tests/unit/wsgi/wsgi_harness.c", *sorted((ROOT / "src/wsgi").glob("*.c")),
               ROOT / "src/handler/date.c", ROOT / "src/handler/reply.c", ROOT / "src/http/h1_parse.c",
               ROOT / "src/obs/trace.c", ROOT / "src/serve/identity.c",
               *(ROOT / f"src/base/{name}.c" for name in BASE)]
    target = folder / "wsgi_harness.so"
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=c17", "-D_GNU_SOURCE", "-shared", "-fPIC",
               "-fvisibility=hidden", "-O1", "-g", *shlex.split(os.environ.get("WSGI_CFLAGS", "")),
               f"-I{ROOT}/src", "-isystem", sysconfig.get_paths()["include"],
               *map(str, sources), "-lpthread", "-o", str(target)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture(scope="session")
def harness(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("wsgi_harness", build(tmp_path_factory.mktemp("wsgi")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
