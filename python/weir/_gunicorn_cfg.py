"""Gunicorn's settings as Python objects: values of the configuration file to texts for the core, and the
object that hooks know as `cfg`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable


class ConfigError(Exception):
    """One line for a human; `details` is the traceback below it, or ""."""

    def __init__(self, line: str, details: str = "") -> None:
        super().__init__(line)
        self.details = details


# ---- values to texts ----


def texts_of(name: str, kind: str, value: Any) -> list[str]:
    """A value of the configuration file as texts for the core. TypeError and ValueError say what is wrong."""
    if kind == "list":
        return list_texts(value)
    if kind == "pairs":
        if not isinstance(value, dict):
            raise TypeError("%s is no dict" % shown(value))
        return ["%s=%s" % item for item in value.items()]
    if name == "proxy_protocol" and isinstance(value, bool):
        return ["auto" if value else "off"]
    if kind in ("int", "time", "threads", "workers", "bits"):
        return [number_text(value, kind)]
    if value is None:
        return []
    if kind == "bool":
        if not isinstance(value, (bool, str)):
            raise TypeError("%s is neither True nor False" % shown(value))
        return [str(value).lower()]
    return [plain_text(value)]


def number_text(value: Any, kind: str) -> str:
    if isinstance(value, str):
        try:
            return str(int(value, 0))
        except ValueError:
            return value  # the core knows more forms, and what to say
    if isinstance(value, float) and kind == "time":
        return str(int(value)) if value.is_integer() else str(value)
    try:
        return str(value.__index__())
    except AttributeError:
        raise TypeError("%s is not a whole number" % shown(value)) from None


def list_texts(value: Any) -> list[str]:
    if not value:
        return []
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError("%s is no list of texts" % shown(value))
    return [plain_text(item) for item in value]


def plain_text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, type):
        return value.__module__ + "." + value.__qualname__
    if isinstance(value, (list, tuple)):
        return ",".join(plain_text(item) for item in value)
    try:
        return str(value.__index__())
    except AttributeError:
        raise TypeError("%s is not a text" % shown(value)) from None


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else "a " + type(value).__name__


# ---- hooks ----


def arity(function: Callable[..., Any]) -> int:
    """How many arguments it takes by position, `self` of a method not counted."""
    code = getattr(function, "__code__", None)
    if code is not None:
        return code.co_argcount
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(function).parameters.values())


def hook(name: str, wanted: str, value: Any) -> Callable[..., Any]:
    """The hook `name`, checked: `wanted` is the number of its arguments, as "2" or "2 to 4"."""
    if isinstance(value, str):
        value = imported(value)
    if not callable(value):
        raise TypeError("%s is not callable" % shown(value))
    if wanted:
        least, _, most = wanted.partition(" to ")
        n = arity(value)
        if not int(least) <= n <= int(most or least):
            raise TypeError("the function takes %d arguments; it is called with %s" % (n, wanted))
        if name == "post_request":
            return with_four(value, n)
    return value


def with_four(function: Callable[..., Any], n: int) -> Callable[..., Any]:
    """post_request may leave out its last arguments."""
    if n == 4:
        return function
    return lambda *arguments: function(*arguments[:n])


def imported(path: str) -> Any:
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise TypeError("'%s' is not of the form module.function" % path)
    try:
        return getattr(__import__(module_name, fromlist=[attribute]), attribute)
    except ImportError as error:
        raise TypeError(str(error)) from None
    except AttributeError:
        raise TypeError("there is no '%s' in '%s'" % (attribute, module_name)) from None


# ---- cfg ----


def unset_hook(*_: object) -> None:
    """In place of a hook that the configuration file does not define."""


class Setting:
    """One entry of cfg.settings."""

    def __init__(self, name: str, value: Any, default: Any) -> None:
        self.name = name
        self.value = value
        self.default = default

    def get(self) -> Any:
        return self.value

    def __repr__(self) -> str:
        return "<Setting %s with value %r>" % (self.name, self.value)


class Config:
    """What hooks know as `cfg`: every setting of Gunicorn as an attribute, with Gunicorn's types.

    It tells what is in force; assigning to it changes nothing.
    """

    def __init__(
        self, rows: Iterable[Any], objects: dict[str, Any], done: dict[str, Any], env: dict[str, str]
    ) -> None:
        settings = {}
        for name, kind, default, _, texts, source in rows:
            usual = typed(name, kind, [default] if default else [], default)
            value = usual if source is None else typed(name, kind, texts, default)
            if kind == "code":
                usual = {} if name == "logconfig_dict" else unset_hook
                value = objects.get(name, usual)
            settings[name] = Setting(name, value, usual)
        settings["bind"].value = list(done["binds"])
        settings["workers"].value = done["workers"]
        settings["default_proc_name"].value = done["app"] or settings["default_proc_name"].value
        settings["threads"].value = done["threads"]
        for name in ("worker_class", "logger_class"):
            if name in objects:
                settings[name].value = objects[name]
        self.__dict__["settings"] = settings
        self.__dict__["env_orig"] = env
        self.__dict__["prog"] = "weir gunicorn"

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["settings"][name].value
        except KeyError:
            raise AttributeError("there is no setting '%s'" % name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.settings:
            raise AttributeError("'%s' cannot be assigned; use cfg.set" % name)
        self.__dict__[name] = value

    def set(self, name: str, value: Any) -> None:
        """Change what `cfg` shows. The server has read its settings already."""
        if name not in self.settings:
            raise AttributeError("there is no setting '%s'" % name)
        self.settings[name].value = value

    def __str__(self) -> str:
        width = max(map(len, self.settings))
        return "\n".join(
            "%-*s = %s" % (width, name, named(self.settings[name].value))
            for name in sorted(self.settings)
        )

    @property
    def worker_class_str(self) -> str:
        value = self.settings["worker_class"].value
        if not isinstance(value, str):
            return value.__name__
        sync = value == "sync" or value.endswith("SyncWorker")
        return "gthread" if sync and self.threads > 1 else value

    @property
    def address(self) -> list[Any]:
        """(host, port) of each, or the path of a Unix socket, or a descriptor."""
        return [address(text) for text in self.bind]

    @property
    def uid(self) -> int:
        return self.user

    @property
    def gid(self) -> int:
        return self.group

    @property
    def proc_name(self) -> str:
        return self.settings["proc_name"].value or self.settings["default_proc_name"].value

    @property
    def logs_through_python(self) -> bool:
        """Do Weir's own lines go to Python's loggers?"""
        return bool(self.logconfig or self.logconfig_dict or self.logconfig_json or self.syslog)

    @property
    def is_ssl(self) -> bool:
        return bool(self.certfile or self.keyfile)

    @property
    def ssl_options(self) -> dict[str, Any]:
        names = ("keyfile", "certfile", "ssl_version", "cert_reqs", "ca_certs", "ciphers")
        return {name: self.settings[name].value for name in names}

    @property
    def env(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.raw_env)

    @property
    def sendfile(self) -> bool:
        return self.settings["sendfile"].value is not False

    @property
    def paste_global_conf(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.raw_paste_global_conf)


def named(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return "<%s()>" % name if callable(value) and name else str(value)


def typed(name: str, kind: str, texts: list[str], default: str) -> Any:
    """Texts of the core as Gunicorn's own value."""
    if kind == "list":
        return list(texts)
    if kind == "pairs":
        items = texts if texts != [default] else default.split(",")
        return dict(item.split("=", 1) for item in items)
    if kind == "code":
        return None
    text = texts[-1] if texts else ""
    if name in ("user", "group"):
        return number_of(name, text)
    if name == "chdir":
        return os.path.abspath(text or ".")
    if not texts:
        return None
    if text == "''":
        return ""
    if kind == "bool":
        return text.strip().lower() in ("yes", "true", "on", "1", "y", "t")
    if kind == "bits":
        digits = text.strip()
        old = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        return int(digits, 8) if old else int(digits, 0)
    if kind in ("int", "time", "threads", "workers") or name in ("cert_reqs", "ssl_version"):
        try:
            return int(text)
        except ValueError:
            return text
    return text


def number_of(name: str, text: str) -> int:
    """The id of a user or group; this process's own when none is given."""
    if not text:
        return os.geteuid() if name == "user" else os.getegid()
    if text.isdigit():
        return int(text)
    try:
        if name == "user":
            import pwd

            return pwd.getpwnam(text).pw_uid
        import grp

        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError("%s: there is no %s '%s'" % (name, name, text)) from None


def address(text: str) -> Any:
    if text.startswith("unix:"):
        return text[5:]
    if text.startswith("fd://"):
        return int(text[5:])
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = (text, "8000") if not text.isdigit() else ("127.0.0.1", text)
    return (host.strip("[]").replace("*", "0.0.0.0"), int(port) if port.isdigit() else port)


# ---- the configuration file ----


def execute(location: str, folder: str) -> tuple[dict[str, Any], str]:
    """The variables of PATH, file:PATH or python:MODULE, and how messages call it. Paths begin in `folder`."""
    if location.startswith("python:"):
        module = location[len("python:") :]
        return run(module, lambda: import_again(module), None), module
    path = location.removeprefix("file:")
    where = os.path.abspath(os.path.join(folder, path))
    try:
        with open(where, "rb") as file:
            source = file.read()
    except OSError as error:
        raise ConfigError(
            "cannot read the configuration file '%s': %s" % (path, error.strerror)
        ) from None

    def execute_file() -> dict[str, Any]:
        module = type(os)("__config__")
        module.__file__ = where
        sys.modules["__config__"] = module
        exec(compile(source, where, "exec"), module.__dict__)
        return vars(module)

    return run(path, execute_file, where), path


def import_again(name: str) -> dict[str, Any]:
    """Import a module; on a reload as it is now."""
    import importlib

    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return vars(importlib.import_module(name))


def run(shown_name: str, function: Callable[[], dict[str, Any]], where: str | None) -> dict[str, Any]:
    try:
        return function()
    except SyntaxError as error:
        raise ConfigError(
            "%s, line %s: syntax error: %s"
            % (shown_name if error.filename == where else error.filename, error.lineno, error.msg)
        ) from None
    except SystemExit as error:
        raise ConfigError(
            "%s: the configuration file ended the program (exit code %s)" % (shown_name, error.code)
        ) from None
    except Exception as error:
        raise file_error(shown_name, where, error) from None


def file_error(shown_name: str, where: str | None, error: Exception) -> ConfigError:
    from weir import _load

    line = 0
    frames = 0
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if _load.is_application_frame(name) and not name.startswith("<"):
            frames += 1
            if name == where:
                line = step.tb_lineno
        step = step.tb_next
    place = "%s, line %d" % (shown_name, line) if line else shown_name
    missing = error.name if isinstance(error, ModuleNotFoundError) else ""
    if missing and missing.partition(".")[0] == "gunicorn":
        return ConfigError(
            "%s: it imports %s, which is not installed; Weir needs nothing of it: take the import "
            "out, or install gunicorn beside Weir" % (place, missing)
        )
    # Where it happened deeper than in the file itself, the way there helps.
    details = _load.cut_traceback(error) if frames > 1 else ""
    return ConfigError("%s: %s" % (place, _load.one_line(error)), details)
