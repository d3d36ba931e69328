"""--reload: a worker watches the files of its application, and lets itself be replaced when one changes.

Watched are the modules that the application has imported (not those of Python and of installed packages),
what lies beside them with a suffix of source or configuration, folders of templates, and what
--reload-extra names. The kernel tells of changes at once (weir._core.Watch); once a second the files are
looked at as well, for file systems that do not tell.

It stops accepting with the first change, so that no client sees the old code after it. The next worker waits until no
more changes follow before it imports; what changes while it does is noticed afterwards, since each source is
remembered as it was when it was read. A worker whose application cannot be imported serves a page that
says why, and is replaced in the same way.

Threads: `prepare`, `failed` and `start` (before it makes the thread) in the worker's main thread, all else in "weir-reload".
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import html
import importlib.machinery
import itertools
import os
import secrets
import signal
import site
import sys
import sysconfig
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator

    from weir._core import Config, Server

    Stamp = tuple[int, int, int] | None

# A change is over when nothing more came for so long; a checkout of many files is not waited for longer.
QUIET_SECONDS = 0.05
LATEST_SECONDS = 1.0
# Folders in which the end of a change is waited for.
SETTLE_FOLDERS_MAX = 500
# How often the files themselves are looked at; less often when that takes more than a hundredth of the time.
LOOK_SECONDS = 1.0
# A source younger than this may change once more within the second that Python's cached bytecode knows.
YOUNG_SECONDS = 2.0
FOLDERS_MAX = 4000
# From the start of this thread to that of the server.
START_SECONDS = 10.0
# How long the page of an error waits for a change with one request.
PAGE_WAIT_SECONDS = 25.0

# Beside modules.
SUFFIXES = (".py", ".html", ".htm", ".jinja", ".jinja2", ".j2", ".mako", ".yaml", ".yml", ".toml")
# In the working folder: what holds settings of the application.
SETTINGS = (".env", ".flaskenv")
SKIPPED_FOLDERS = ("__pycache__", "node_modules")


def stamp(path: str) -> Stamp:
    """What differs after a change; None: there is no such file."""
    try:
        st = os.stat(path)
    except OSError:
        return None
    return st.st_mtime_ns, st.st_size, st.st_ino


def is_scratch(name: str) -> bool:
    """Files that editors and version control put beside the real ones."""
    return (
        name.startswith((".", "#"))
        or name.endswith(("~", ".swp", ".swx", ".tmp", ".bak", ".orig", ".pyc"))
        or name.isdigit()
    )


# ---- what was imported ----

_imported: dict[str, Stamp] = {}


def install() -> None:
    """Before the import of the application: remember what each source looked like when it was read."""

    def path_stats(self: Any, path: str) -> dict[str, Any]:
        st = os.stat(path)
        _imported[os.path.abspath(path)] = st.st_mtime_ns, st.st_size, st.st_ino
        # Cached bytecode is valid for a size and a whole second. Without these numbers it is neither used
        # nor written (importlib.abc.SourceLoader).
        if time.time() - st.st_mtime < YOUNG_SECONDS:
            raise OSError("too young for cached bytecode")
        return {"mtime": st.st_mtime, "size": st.st_size}

    importlib.machinery.SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]


def foreign_folders() -> tuple[str, ...]:
    """Where Python and installed packages live."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {sysconfig.get_path(name) for name in names}
    found.update(site.getsitepackages())
    found.add(site.getusersitepackages())
    found.add(os.path.dirname(os.path.abspath(__file__)))
    both = {os.path.abspath(f) for f in found if f} | {os.path.realpath(f) for f in found if f}
    return tuple(f + os.sep for f in both)


def module_files() -> Iterator[str]:
    for module in list(sys.modules.values()):
        try:
            path = getattr(module, "__file__", None)
        except Exception:  # a module that is an object of its own kind
            continue
        if isinstance(path, str) and path.endswith((".py", ".so")):
            yield os.path.abspath(path)


def template_folders() -> Iterator[str]:
    """What loaders of templates that are in use search."""
    import gc

    def of(name: str, attribute: str) -> type | None:
        found = getattr(sys.modules.get(name), attribute, None)
        return found if isinstance(found, type) else None

    known = [
        (of("jinja2.loaders", "FileSystemLoader"), "searchpath"),
        (of("jinja2.loaders", "PackageLoader"), "_template_root"),
        (of("django.template.engine", "Engine"), "dirs"),
        (of("mako.lookup", "TemplateLookup"), "directories"),
    ]
    known = [(kind, attribute) for kind, attribute in known if kind]
    if not known:
        return
    things = gc.get_objects()
    # type(), not isinstance(): proxies of an application would begin to work.
    kinds = set(map(type, things))
    of_kind = {t: attribute for kind, attribute in known for t in kinds if issubclass(t, kind)}
    for thing in things if of_kind else ():
        if type(thing) in of_kind:
            value = getattr(thing, of_kind[type(thing)], None)
            for folder in [value] if isinstance(value, (str, os.PathLike)) else value or ():
                if isinstance(folder, (str, os.PathLike)):
                    yield os.path.abspath(os.fspath(folder))


def below(folder: str) -> Iterator[str]:
    """The folder and those in it that can hold files of the application."""
    for path, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:  # a virtual environment
            folders.clear()
            continue
        folders[:] = [f for f in folders if not f.startswith(".") and f not in SKIPPED_FOLDERS]
        yield path


class Files:
    """What is watched: files by name, and folders with a rule for what counts in them."""

    def __init__(self, config: Config, settings: Iterable[str]) -> None:
        self.foreign = foreign_folders()
        self.here = os.getcwd()
        self.patterns = [os.path.abspath(p) for p in config.reload_extra]
        self.settings = {os.path.abspath(p) for p in settings}
        self.settings_of_app = {os.path.join(self.here, name) for name in SETTINGS}
        # By path, as it is in use: settings are read before or during the import.
        self.stamps: dict[str, Stamp] = {p: stamp(p) for p in self.settings | self.settings_of_app}
        self.code: set[str] = set()  # folders in which SUFFIXES count
        self.all: set[str] = set()  # folders in which everything counts
        self.modules = -1  # how many were imported when they were looked through

    def collect(self) -> None:
        """Add what is in use by now. What is known stays as it was."""
        self.modules = len(sys.modules)
        files = {p for p in module_files() if self.is_own(p)}
        for path, seen in list(_imported.items()):
            if self.is_own(path):
                self.stamps.setdefault(path, seen)
                files.add(path)
        self.code |= {os.path.dirname(path) for path in files} | {self.here}
        roots = {os.path.join(folder, "templates") for folder in self.code}
        roots |= {f for f in template_folders() if self.is_own(f + os.sep)}
        for pattern in self.patterns:
            if os.path.isdir(pattern):
                roots.add(pattern)
            else:
                files.update(glob.glob(pattern, recursive=True) or [pattern])
        for root in roots:
            self.all.update(below(root))
        for folder in self.all:
            files.update(self.entries(folder, lambda name: not is_scratch(name)))
        for folder in self.code - self.all:
            files.update(self.entries(folder, lambda name: name.endswith(SUFFIXES) and not is_scratch(name)))
        for path in files:
            if path not in self.stamps:
                self.stamps[path] = stamp(path)

    def is_own(self, path: str) -> bool:
        return not path.startswith(self.foreign)

    @staticmethod
    def entries(folder: str, wanted: Callable[[str], bool]) -> list[str]:
        try:
            with os.scandir(folder) as found:
                return [entry.path for entry in found if wanted(entry.name) and not entry.is_dir()]
        except OSError:
            return []

    def folders(self) -> set[str]:
        """All that must be watched to learn of changes, and of what a pattern may match later."""
        found = self.code | self.all | {os.path.dirname(path) for path in self.stamps}
        for pattern in self.patterns:
            fixed = pattern
            while glob.has_magic(fixed):
                fixed = os.path.dirname(fixed)
            found.add(fixed if os.path.isdir(fixed) else os.path.dirname(fixed))
        return found

    def counts(self, folder: str, name: str) -> bool:
        path = os.path.join(folder, name)
        if path in self.stamps:
            return True
        if is_scratch(name) or os.path.isdir(path):
            return False
        if folder in self.all or (folder in self.code and name.endswith(SUFFIXES)):
            return True
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in self.patterns)

    def changed(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if stamp(path) != self.stamps.get(path)]


# ---- the thread ----


class Reloader:
    """Watches for a worker.

    `settings` are the files that `config` was read from; `supervisor` is the process that reads them again.
    """

    def __init__(
        self, core: Any, config: Config, settings: Iterable[str], log: Any, supervisor: int
    ) -> None:
        self.core = core
        self.log = log
        self.supervisor = supervisor
        self.files = Files(config, settings)
        self.failure: Failure | None = None
        self.server: Any = None
        self.watch: Any = None
        self.watched: dict[str, int] = {}  # number of each folder; -1: it cannot be watched
        self.names: dict[int, str] = {}  # and back

    def prepare(self) -> None:
        """Before the application is imported: remember what is read, and wait for the end of a change."""
        install()
        watch = self._open()
        if watch is None:
            time.sleep(QUIET_SECONDS)
            return
        for folder in itertools.islice(below(self.files.here), SETTLE_FOLDERS_MAX):
            with contextlib.suppress(OSError):
                watch.add(folder)
        self._wait_quiet(watch)
        watch.close()

    def start(self, server: Server) -> None:
        """The server is about to run. What requests read from now on is watched."""
        self.server = server
        self.watch = self._open()
        self._collect()
        self.log.debug("--reload watches %d files in %d folders", len(self.files.stamps), len(self.watched))
        threading.Thread(target=self._main, name="weir-reload", daemon=True).start()

    def failed(self, error: Any, tell: bool) -> Failure:
        """An application in the place of one that could not be loaded. `tell`: details to clients."""
        self.failure = Failure(str(error), error.details, tell)
        self.log.error("%s; it is loaded again when a file changes\n%s", error, error.details)
        return self.failure

    def _main(self) -> None:
        try:
            self._watch()
        except Exception:
            self.log.exception("--reload has ended, the server goes on:")

    def _watch(self) -> None:
        pause = LOOK_SECONDS
        while True:
            dirty = self._dirty(self.watch.wait(pause)) if self.watch else self._sleep(pause)
            while not dirty and len(sys.modules) != self.files.modules:
                self._collect()
            begun = time.monotonic()
            changed = self.files.changed(dirty or self.files.stamps)
            pause = max(LOOK_SECONDS, 100 * (time.monotonic() - begun))
            if changed and self._act(changed):
                return

    def _open(self) -> Any:
        try:
            return self.core.Watch()
        except OSError as error:
            self.log.warning(
                "--reload: no inotify (%s); files are looked at every %g s", error.strerror, LOOK_SECONDS
            )
            return None

    def _collect(self) -> None:
        """Look through what is imported, and watch the folders that came with it."""
        self.files.collect()
        for folder in sorted(self.files.folders()):
            if self.watch is None or folder in self.watched:
                continue
            if len(self.watched) >= FOLDERS_MAX:
                self.log.warning("--reload: more than %d folders; others are looked at every second", FOLDERS_MAX)
                break
            try:
                number = self.watch.add(folder)
            except OSError as error:
                if os.path.isdir(folder):
                    self.watched[folder] = -1
                    self.log.warning("--reload: cannot watch %s (%s); it is looked at every second",
                                     folder, error.strerror)
                continue
            self.watched[folder] = number
            self.names[number] = folder

    @staticmethod
    def _sleep(seconds: float) -> set[str]:
        time.sleep(seconds)
        return set()

    @staticmethod
    def _wait_quiet(watch: Any) -> None:
        latest = time.monotonic() + LATEST_SECONDS
        while watch.wait(QUIET_SECONDS) and time.monotonic() < latest:
            pass

    def _dirty(self, events: list[tuple[int, str]]) -> set[str]:
        found = set()
        for number, name in events:
            folder = self.names.get(number)
            if folder is None:  # events were lost: everything
                found.update(self.files.stamps)
            elif not name:  # it is gone, and so is its watch
                self.watched.pop(folder, None)
                self.files.modules = -1
            elif self.files.counts(folder, name):
                found.add(os.path.join(folder, name))
            elif folder in self.files.all:  # a new folder, perhaps
                self.files.modules = -1
        return found

    def _act(self, changed: list[str]) -> bool:
        """Let the change have its effect. False: go on watching here."""
        shown = os.path.relpath(sorted(changed)[0], self.files.here)
        more = " and %d more" % (len(changed) - 1) if len(changed) > 1 else ""
        for path in changed:
            self.files.stamps[path] = stamp(path)
        if self.files.settings.intersection(changed):
            self.log.info("%s%s has changed: reading the settings again", shown, more)
            self._sleep(QUIET_SECONDS)  # it may have been made, and not yet written
            self.files.stamps.update((path, stamp(path)) for path in changed)
            try:
                os.kill(self.supervisor, signal.SIGHUP)
            except OSError:
                pass  # it has ended, and so will this worker
            return False
        self.log.info("%s%s has changed: starting again", shown, more)
        until = time.monotonic() + START_SECONDS
        while not self.server.recycle() and time.monotonic() < until:
            time.sleep(0.005)  # the thread is ahead of its server
        if self.failure:
            self.failure.over.set()
        return True


# ---- the page of an error ----

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>%(title)s</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 3em auto; padding: 0 1em }
h1 { font-size: 1.25em; border-left: .3em solid #c33; padding-left: .6em; overflow-wrap: anywhere }
pre { background: color-mix(in srgb, currentColor 8%%, transparent); padding: 1em; border-radius: .4em; overflow-x: auto;
  font-size: .85em }
p { opacity: .7 }
</style></head><body>
<h1>%(line)s</h1>%(details)s
<p id="note">The application is loaded again when a file changes, and this page with it.</p>
<script>
async function wait() {
  for (;;) {
    try {
      const r = await fetch(location.href, {cache: "no-store", headers: {"Weir-Wait": "%(token)s"}});
      if (r.headers.get("Weir-Wait") !== "%(token)s") break;
      await r.text();
    } catch (e) {
      await new Promise(done => setTimeout(done, 300));
    }
  }
  location.reload();
}
wait();
</script></body></html>
"""


class Failure:
    """A WSGI application that tells why the real one is not there.

    Its page asks again with the field Weir-Wait; that request is answered when something has changed, so
    that the page can show it at once.
    """

    def __init__(self, line: str, details: str, tell: bool) -> None:
        self.token = secrets.token_hex(8)
        self.over = threading.Event()
        self.line = line if tell else "The application cannot be loaded; its log says why"
        self.details = details if tell else ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        fields = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        waits = environ.get("HTTP_WEIR_WAIT") == self.token
        if waits:
            same = not self.over.wait(PAGE_WAIT_SECONDS)
            fields.append(("Weir-Wait", self.token if same else "over"))
        if not waits and "text/html" in environ.get("HTTP_ACCEPT", ""):
            kind, text = "text/html", PAGE % {
                "title": html.escape(self.line[:80]),
                "line": html.escape(self.line),
                "details": "<pre>%s</pre>" % html.escape(self.details) if self.details else "",
                "token": self.token,
            }
        else:
            kind, text = "text/plain", "" if waits else "%s\n\n%s" % (self.line, self.details)
        body = text.encode("utf-8", "replace")
        fields += [("Content-Type", kind + "; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response("500 Internal Server Error", fields)
        return [body]
