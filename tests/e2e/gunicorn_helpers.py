"""`weir gunicorn` in a folder of its own, with or without a configuration file there."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path
from typing import Any

from harness import APPS, Server, Starter, weir_command

APP = "process_told:app"


class Gunicorn:
    """Call it to start a server: options of Gunicorn as they stand on a command line.

    gunicorn("-w", "2")                                    the application above, port 0
    gunicorn(conf="workers = 2")                           the text is gunicorn.conf.py
    """

    def __init__(self, weir: Starter, folder: Path) -> None:
        self.weir = weir
        self.folder = folder

    def write(self, conf: str, name: str = "gunicorn.conf.py") -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(conf))
        return path

    def command(self, *options: str, app: str | None = APP, bind: str | None = "127.0.0.1:0") -> list[str]:
        command = [*weir_command(), "gunicorn", "--pythonpath", str(APPS)]
        if bind:
            command += ["-b", bind]
        return [*command, *options, *([app] if app else [])]

    def __call__(self, *options: str, app: str | None = APP, bind: str | None = "127.0.0.1:0",
                 conf: str | None = None, **more: Any) -> Server:
        if conf is not None:
            self.write(conf)
        return self.weir(command=self.command(*options, app=app, bind=bind), cwd=self.folder, **more)

    def run(self, *options: str, app: str | None = APP, bind: str | None = "127.0.0.1:0",
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        import os

        environment = {k: v for k, v in os.environ.items()
                       if not k.startswith(("WEIR_", "LISTEN_", "PORT", "GUNICORN_")) or k == "WEIR_PYTHON"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return subprocess.run(self.command(*options, app=app, bind=bind), cwd=self.folder, text=True,
                              env={**environment, **(env or {})}, capture_output=True, timeout=30)
