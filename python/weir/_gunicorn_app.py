"""The application as Gunicorn names it: MODULE, MODULE:NAME, MODULE:FACTORY('literal', k=1), or PasteDeploy."""

from __future__ import annotations

import os
from typing import Any

from weir import _load
from weir._load import LoadError

OPTION = "() behind its name"


def load(spec: str) -> Any:
    """The WSGI application. Raises LoadError."""
    module_name, colon, text = spec.partition(":")
    if not colon and spec.endswith(".py") and os.path.exists(spec):
        dotted = spec[:-3].removeprefix("./").replace("/", ".")
        raise LoadError("'%s' is a file; name the module and the application in it, as %s:app" % (spec, dotted))
    names, call = parse(text.strip() or "application", spec)
    module = _load.import_module(module_name)
    if not colon and not hasattr(module, "application") and hasattr(module, "app"):
        names = ["app"]
    found = _load.attribute(module, names, spec)
    if call is not None:
        found = call_factory(found, spec, *call)
    _load.check(found, spec, call is not None, OPTION)
    return found


def parse(text: str, spec: str) -> tuple[list[str], tuple[list[Any], dict[str, Any]] | None]:
    """The names of an attribute, and the arguments of the call behind it."""
    head, opening, _ = text.partition("(")
    names = head.strip().split(".")
    if not all(name.isidentifier() for name in names):
        raise LoadError(
            "'%s' does not name an application; write MODULE:NAME or MODULE:FACTORY('text', number=1)" % spec
        )
    if not opening:
        return names, None
    import ast

    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError
        arguments = [ast.literal_eval(a) for a in call.args]
        keywords = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg or fail()}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise LoadError(
            "'%s': only a call with plain values can be written here, as %s:%s('text', number=1)"
            % (spec, spec.partition(":")[0], head.strip())
        ) from None
    return names, (arguments, keywords)


def fail() -> bool:
    raise ValueError


def call_factory(factory: Any, spec: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    if not callable(factory):
        raise LoadError("'%s': %s cannot be called" % (spec, _load.kind_of(factory)))
    try:
        return factory(*arguments, **keywords)
    except SystemExit as error:
        raise LoadError(
            "the factory '%s' ended the program (exit code %s)" % (spec, error.code),
            _load.cut_traceback(error),
        ) from None
    except Exception as error:
        if isinstance(error, TypeError) and error.__traceback__ and not error.__traceback__.tb_next:
            raise LoadError("the factory '%s' does not take these arguments: %s" % (spec, error)) from None
        raise LoadError(
            "the factory '%s' failed: %s" % (spec, _load.one_line(error)), _load.cut_traceback(error)
        ) from None


def load_paste(uri: str, variables: dict[str, str]) -> Any:
    """The application of an ini file of PasteDeploy, FILE or FILE#SECTION."""
    try:
        from paste.deploy import loadapp
    except ImportError:
        raise LoadError("--paste needs the package PasteDeploy; install it for this Python") from None
    path, _, section = uri.partition("#")
    if not os.path.exists(path):
        raise LoadError("--paste: there is no file '%s'" % path)
    try:
        return loadapp(
            "config:" + os.path.abspath(path), name=section or "main", global_conf=variables
        )
    except Exception as error:
        raise LoadError(
            "--paste: cannot load '%s': %s" % (uri, _load.one_line(error)), _load.cut_traceback(error)
        ) from None
