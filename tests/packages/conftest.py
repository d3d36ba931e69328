"""The server fixtures of the end-to-end tests, and one wheel for all files of a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from harness import Starter, starter  # noqa: E402


@pytest.fixture
def weir(tmp_path):
    """Start servers; see harness.Starter."""
    with starter(tmp_path) as s:
        yield s


@pytest.fixture(scope="module")
def weir_module(tmp_path_factory):
    with starter(tmp_path_factory.mktemp("weir")) as s:
        yield s


def run(*command: str | Path, timeout: float = 380, **more) -> str:
    """Standard output and error of a program that must not fail."""
    environment = {k: v for k, v in os.environ.items() if not re.match(r"(WEIR_|PORT$|VIRTUAL_ENV|PYTHONPATH)", k)}
    environment.update(more.pop("env", {}))
    done = subprocess.run(list(command), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                          timeout=timeout, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-6000:]}"
    return done.stdout


def certificate(folder: Path) -> list[str]:
    """A self-signed one, as options of weir."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
        "-out", cert, "-days", "2", "-subj", "/CN=localhost")
    return ["--certfile", str(cert), "--keyfile", str(key)]


__all__ = ["ROOT", "Starter", "certificate", "run"]
