"""What the tests of packages share: running programs that must not fail, a certificate."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
