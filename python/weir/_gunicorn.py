"""`weir gunicorn`: the command line, then the configuration file, then the server.

The core reads the command line and GUNICORN_CMD_ARGS, Python executes the configuration file, and the
core joins both: core.gunicorn_finish.
"""

from __future__ import annotations

import os
import sys

from weir import _cli
from weir._gunicorn_cfg import Config, ConfigError, execute, hook, texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weir import _core
    from weir._gunicorn_writer import Writer
    from weir._process import Process

PROGRAM = "weir gunicorn"
DEFAULT_FILE = "gunicorn.conf.py"
# Exit codes of Gunicorn.
BAD_CONFIG = 1
NO_APPLICATION = 4


class Loaded:
    """A configuration that is complete."""

    def __init__(self, config: _core.Config, cfg: Config, action: str, done: dict[str, Any]) -> None:
        self.config = config  # Weir's
        self.cfg = cfg  # Gunicorn's, for hooks
        self.action = action  # run, check or print
        self.message = done["message"]  # what has no effect, for standard error
        self.output = done["output"]  # Weir's settings, one a line
        self.environ = done["environ"]  # what it adds to the environment

    def load_app(self) -> Any:
        """The application, in its folder already. Raises weir._load.LoadError."""
        from weir import _gunicorn_app, _load

        _load.prepare_path(self.config.pythonpath)
        if self.cfg.capture_output and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)
        if self.cfg.paste:
            return _gunicorn_app.load_paste(self.cfg.paste, self.cfg.paste_global_conf)
        return _gunicorn_app.load(self.config.app)


class Loader:
    """Reads the configuration, and reads it again on a reload."""

    def __init__(self, core: Any, process: Process, arguments: list[str]) -> None:
        self.core = core
        self.argv = [PROGRAM, *arguments]
        self.folder = process.folder
        self.status = 0  # exit code when `load` returns None
        self.writer: Writer | None = None  # of logs, where Python's logging writes them

    def load(self, environ: dict[str, str]) -> Loaded | None:
        """None: there is nothing to run, and `status` is the exit code. Raises ConfigError."""
        parsed = self.core.parse(self.argv, "gunicorn", environ)
        sys.stderr.write(parsed["message"])
        sys.stdout.write(parsed["output"])
        self.status = parsed["status"]
        config = parsed["config"]
        if config is None:
            return None
        # The configuration file may look at what files of variables add.
        os.environ.update(parsed["environ"])
        values, objects = self.read_file(self.core.gunicorn_settings(config))
        try:
            done = self.core.gunicorn_finish(config, values)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        cfg = Config(self.core.gunicorn_settings(config), objects, done, environ)
        action = parsed["action"]
        if action == "run" and (cfg.check_config or cfg.print_config):
            action = "print" if cfg.print_config else "check"
        if action == "run" and cfg.logs_through_python:
            self.write_logs(config, cfg)
        return Loaded(config, cfg, action, done)

    def write_logs(self, config: _core.Config, cfg: Config) -> None:
        from weir import _gunicorn_writer

        if self.writer is None:
            self.writer = _gunicorn_writer.Writer(self.core)
        self.writer.start(cfg)
        self.writer.lead(config, cfg)

    def read_file(self, rows: list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """The settings of the configuration file for the core, and those of them that are objects."""
        by_name = {row[0]: row for row in rows}
        texts, source = by_name["config"][4:6]
        location = texts[-1] if texts and source else ""
        if not location:
            location = DEFAULT_FILE
            if not os.path.exists(os.path.join(self.folder, location)):
                return [], {}
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        variables, place = execute(location, self.folder)
        values = []
        objects = {}
        for name, kind, _, wanted, _, _ in rows:
            if name not in variables or name == "config":
                continue
            value = variables[name]
            origin = "%s: %s" % (place, name)
            try:
                if kind == "code":
                    if value is None:
                        continue
                    if name == "logconfig_dict" and not isinstance(value, dict):
                        raise TypeError("a %s is no dict" % type(value).__name__)
                    objects[name] = value if name == "logconfig_dict" else hook(name, wanted, value)
                    value = ["set"] if value else []
                else:
                    if name in ("worker_class", "logger_class") and isinstance(value, type):
                        objects[name] = value
                    value = texts_of(name, kind, value)
            except Exception as error:
                raise ConfigError("%s: %s" % (origin, error)) from None
            values.append((name, value, origin))
        return values, objects


def main(core: Any, process: Process, arguments: list[str]) -> int:
    """Run a command line without the words `weir gunicorn`. Returns the exit code."""
    loader = Loader(core, process, arguments)
    try:
        loaded = loader.load(process.environ)
        if loaded is None:
            return loader.status
        sys.stderr.write(loaded.message)
        sys.stderr.flush()
        if loaded.action == "print":
            print_settings(loaded)
    except ConfigError as error:
        return _cli.fail(str(error), error.details)
    except KeyboardInterrupt:
        return 130
    if loaded.action == "run" and loaded.config.workers:
        from weir._gunicorn_hooks import GunicornHooks

        hooks = GunicornHooks(core, loader, loaded)
        return _cli.supervise(core, process, loaded.config, loaded.environ, hooks)
    os.environ.update(loaded.environ)
    status = run(core, process, loaded)
    process.end(core, status)
    return status


def run(core: Any, process: Process, loaded: Loaded) -> int:
    """Check, or serve in this process alone: without hooks."""
    from weir import _load

    def load(config: _core.Config) -> Any:
        if config.chdir:
            _cli.change_folder(config.chdir)
        return loaded.load_app()

    try:
        if loaded.action != "run":
            return _cli.check(core, loaded.config, load)
        process.begin(core, loaded.config, False)
        return _cli.start(core, process, loaded.config, load)
    except _load.LoadError as error:
        _cli.fail(str(error), error.details)
        return NO_APPLICATION if loaded.action == "run" else BAD_CONFIG
    except (OSError, ValueError) as error:
        return _cli.fail(error.args[-1] if error.args else repr(error))
    except KeyboardInterrupt:
        return 130


def print_settings(loaded: Loaded) -> None:
    """Gunicorn's settings as Gunicorn prints them, then Weir's with their sources."""
    print(loaded.cfg)
    print()
    print(loaded.output, end="", flush=True)
