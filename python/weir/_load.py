"""From "module:attribute" to the application, or to a sentence that says why not.

Two ways to name it work everywhere: MODULE:ATTRIBUTE, where the attribute may have dots, and dots alone, where
as much as possible is imported and the rest are attributes. A module alone means its `app` or
`application`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from types import ModuleType

# Every worker imports this before the application: what only a message needs is imported for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator

# What a module alone is searched for.
APPLICATION_NAMES = ("app", "application")
# New objects between two collections while the application is imported: a tenth of the import's time
# went into looking through objects that stay.
IMPORT_GC_THRESHOLD = 50_000


class LoadError(Exception):
    """One line for a human; `details` is the traceback below it, or ""."""

    def __init__(self, line: str, details: str = "") -> None:
        super().__init__(line)
        self.details = details


def load(name: str, factory: bool = False, factory_option: str = "--factory") -> Any:
    """The WSGI application called `name`. Raises LoadError."""
    if ":" in name:
        module_name, _, path = name.partition(":")
        found = attribute(import_module(module_name), path.split("."), name)
    else:
        found, name = resolve_dotted(name)
    if factory:
        found = call_factory(found, name)
    check(found, name, factory, factory_option)
    return found


def prepare_path(folders: Iterable[str]) -> None:
    """Search for modules in the current folder, and before it in `folders`."""
    cwd = os.getcwd()
    if sys.path[:1] not in ([cwd], [""]):
        sys.path.insert(0, cwd)
    sys.path[:0] = [os.path.abspath(folder) for folder in folders]
    importlib.invalidate_caches()


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """While the application is imported. What it sets itself for the collector stays."""
    before, seldom = gc.get_threshold(), (IMPORT_GC_THRESHOLD, 10, 10)
    if not 0 < before[0] < IMPORT_GC_THRESHOLD:  # off, or wanted so
        yield
        return
    gc.set_threshold(*seldom)
    try:
        yield
    finally:
        if gc.get_threshold()[0] == IMPORT_GC_THRESHOLD:
            gc.set_threshold(*before)


# ---- finding ----


def resolve_dotted(name: str) -> tuple[Any, str]:
    """`name` without a colon. Returns what it names, and the name with a colon for messages."""
    words = name.split(".")
    module = import_module(words[0])
    taken = 1
    while taken < len(words):
        longer = ".".join(words[: taken + 1])
        if longer not in sys.modules and not submodule_exists(module, words[taken]):
            break
        module = import_module(longer)
        taken += 1
    module_name, rest = ".".join(words[:taken]), words[taken:]
    if rest:
        if not hasattr(module, rest[0]) and hasattr(module, "__path__"):
            raise LoadError(no_module(module_name + "." + rest[0]))
        full = module_name + ":" + ".".join(rest)
        found = attribute(module, rest, full)
        if not isinstance(found, ModuleType):
            return found, full
        module, module_name = found, found.__name__
    for candidate in APPLICATION_NAMES:
        if hasattr(module, candidate):
            return getattr(module, candidate), module_name + ":" + candidate
    raise LoadError(
        "module '%s' has neither 'app' nor 'application'; %s"
        % (module_name, suggest_attribute(module, "", module_name + ":{}"))
    )


def submodule_exists(module: ModuleType, word: str) -> bool:
    if not hasattr(module, "__path__"):
        return False
    return importlib.util.find_spec(module.__name__ + "." + word) is not None


def attribute(module: ModuleType, words: list[str], name: str) -> Any:
    """Follow `words` from `module`. `name` is the whole as written."""
    found: Any = module
    for i, word in enumerate(words):
        try:
            found = getattr(found, word)
            continue
        except AttributeError as error:
            # An attribute that is there but fails (a property, a module's __getattr__) says so itself.
            owner, missing = found, error
        where = "module '%s'" % module.__name__ if i == 0 else "'%s'" % ".".join(words[:i])
        pattern = module.__name__ + ":" + ".".join(words[:i] + ["{}"])
        if word in dir(owner):
            raise LoadError("'%s' cannot be read: %s" % (name, missing), cut_traceback(missing))
        raise LoadError(
            "%s has no attribute '%s'; %s" % (where, word, suggest_attribute(owner, word, pattern))
        )
    return found


def import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            # Not there itself, unless it was found and then failed to import its own name.
            if not own_frames(error):
                raise LoadError(no_module(error.name)) from None
        raise LoadError(
            "cannot import '%s': %s; install it for %s, or correct the import"
            % (name, error, sys.executable),
            cut_traceback(error),
        ) from None
    except SyntaxError as error:
        raise LoadError(
            "cannot import '%s': syntax error in %s, line %s: %s"
            % (name, shorten(error.filename or "?"), error.lineno, error.msg),
            cut_traceback(error),
        ) from None
    except SystemExit as error:
        raise LoadError(
            "cannot import '%s': it ended the program (exit code %s); put what starts the program "
            "under if __name__ == '__main__'" % (name, error.code),
            cut_traceback(error),
        ) from None
    except Exception as error:
        raise LoadError(
            "cannot import '%s': %s" % (name, one_line(error)), cut_traceback(error)
        ) from None


def call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise LoadError(
            "'%s' is %s and cannot be called as a factory" % (name, kind_of(factory))
        )
    try:
        return factory()
    except SystemExit as error:
        raise LoadError(
            "the factory '%s' ended the program (exit code %s)" % (name, error.code),
            cut_traceback(error),
        ) from None
    except Exception as error:
        if isinstance(error, TypeError) and not binds(factory, 0):
            raise LoadError("the factory '%s' needs arguments: %s" % (name, error)) from None
        raise LoadError(
            "the factory '%s' failed: %s" % (name, one_line(error)), cut_traceback(error)
        ) from None


# ---- is it one? ----


def check(found: Any, name: str, from_factory: bool, factory_option: str) -> None:
    """Refuse at the start what would fail at every request."""
    what = "the factory '%s' returned %s, which" if from_factory else "'%s' is %s and"
    if isinstance(found, ModuleType):
        raise LoadError("'%s' is a module; write %s:app" % (name, found.__name__))
    if not callable(found):
        raise LoadError(what % (name, kind_of(found)) + " is no WSGI application: it is not callable")
    if is_async(found):
        raise LoadError(
            what % (name, kind_of(found)) + " is an ASGI application; Weir serves WSGI applications"
        )
    if not from_factory and not binds(found, 2) and binds(found, 0):
        raise LoadError(
            "'%s' takes no arguments, so it is no WSGI application; if it makes one, add %s"
            % (name, factory_option)
        )


def binds(function: Any, n: int) -> bool:
    """Can it be called with n arguments? Unknown counts as yes."""
    try:
        inspect.signature(function).bind(*[None] * n)
    except TypeError:
        return False
    except Exception:
        return True
    return True


def is_async(found: Any) -> bool:
    call = found if inspect.isroutine(found) else getattr(type(found), "__call__", None)
    if inspect.isclass(found):
        return False
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def kind_of(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return ("an " if name[:1].lower() in "aeio" else "a ") + name


# ---- sentences ----


def no_module(name: str) -> str:
    """Why `name` cannot be found, with the nearest that can."""
    import pkgutil

    parent, _, last = name.rpartition(".")
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            return "'%s' is a module, not a package, so there is no '%s'" % (parent, name)
        near = nearest(last, [m.name for m in pkgutil.iter_modules(path)])
        line = "there is no module '%s' in the package '%s'" % (last, parent)
        return line + ("; did you mean '%s.%s'?" % (parent, near) if near else "")
    cwd = os.getcwd()
    near = nearest(name, [m.name for m in pkgutil.iter_modules([cwd])])
    line = "there is no module '%s' in %s or among the installed ones; " % (name, cwd)
    if near:
        return line + "did you mean '%s'?" % near
    return line + "start in the folder that holds it, or name that folder with --chdir"


def suggest_attribute(owner: Any, word: str, pattern: str) -> str:
    names = [n for n in dir(owner) if not n.startswith("__")]
    near = nearest(word, names) if word else None
    if near:
        return "did you mean '%s'?" % pattern.format(near)
    for known in (*APPLICATION_NAMES, "create_app", "make_app", "wsgi_app", "wsgi"):
        if known in names:
            return "did you mean '%s'?" % pattern.format(known)
    own = getattr(owner, "__name__", None)
    callables = [
        n
        for n in names
        if not n.startswith("_")
        and callable(getattr(owner, n, None))
        and getattr(getattr(owner, n), "__module__", None) == own
    ]
    if callables:
        return "it has %s" % ", ".join(callables[:5])
    return "name the WSGI application in it"


def nearest(word: str, names: list[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(word, names, 1, 0.6)
    if found:
        return found[0]
    lower = {n.lower(): n for n in names}
    return lower.get(word.lower())


def one_line(error: BaseException) -> str:
    """Type and first line of the text."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return "%s: %s" % (name, lines[0][:300]) if lines else name


def shorten(path: str) -> str:
    """Relative to the current folder where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return path
    return relative if len(relative) < len(path) else path


# ---- tracebacks ----

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


def is_application_frame(filename: str) -> bool:
    return not (
        filename.startswith(("<frozen importlib", "<frozen runpy", _OWN_FOLDER))
        or filename == importlib.__file__
    )


def own_frames(error: BaseException) -> bool:
    """Did any line of the application run?"""
    return any(
        is_application_frame(frame.f_code.co_filename)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def cut_traceback(error: BaseException) -> str:
    """The traceback without the frames of Weir and of the import machinery."""
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    todo: list[traceback.TracebackException | None] = [shown]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept = [frame for frame in one.stack if is_application_frame(frame.filename)]
        one.stack = traceback.StackSummary.from_list(kept)
        todo += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
    return "".join(shown.format())
