#!/usr/bin/python3
"""The catalogue: this machine's Debian package descriptions in SQLite with full-text search.

Debian names every package it offers in index files that `apt-get update` fetches. This module
reads them once (about 60,000 packages) and writes `var/catalogue.db`:

    packages      id, name, summary, description, section, kind, homepage, installed_kib
    packages_fts  FTS5 over name, summary and description, English stemming

The short description (`summary`) is in the package index itself. The long one lives in a
separate translation index that not every machine fetches; where it is missing, `description`
is the short one. `description` always begins with the summary.

The file appears complete or not at all: it is written beside its place and renamed. A lock
lets two builders wait for each other. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parent
# BOARD_CATALOGUE names another place.
DEFAULT_PATH = Path(os.environ.get("BOARD_CATALOGUE") or HERE / "var" / "catalogue.db")

# Stored in the file as `user_version`; a file with another number is built anew.
SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE packages (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    summary TEXT NOT NULL,
    description TEXT NOT NULL,
    section TEXT NOT NULL,
    kind TEXT NOT NULL,
    homepage TEXT,
    installed_kib INTEGER
);
CREATE VIRTUAL TABLE packages_fts USING fts5(
    name, summary, description,
    content='packages', content_rowid='id', tokenize='porter unicode61'
);
"""

# Every column a client may ask for, in the order of the table.
COLUMNS = (
    "id",
    "name",
    "summary",
    "description",
    "section",
    "kind",
    "homepage",
    "installed_kib",
)

APT_HELPER = "/usr/lib/apt/apt-helper"

Row = tuple[str, str, str, str, str, "str | None", "int | None"]


class CatalogueError(Exception):
    """The catalogue cannot be built or read; the text names the cause and the cure."""


# --- reading the indexes -------------------------------------------------------------------------


def stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Split a Debian control file into its records.

    Field names come back in lower case. A continuation line keeps its leading space, so the
    caller can tell the first line of a value from the rest. Lines that are neither are skipped.
    """
    record: dict[str, list[str]] = {}
    value: list[str] | None = None
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if record:
                yield {name: "\n".join(parts) for name, parts in record.items()}
            record, value = {}, None
        elif line[0] in " \t":
            if value is not None:
                value.append(line)
        else:
            name, colon, rest = line.partition(":")
            value = record.setdefault(name.lower(), []) if colon else None
            if value is not None:
                value.append(rest.strip())
    if record:
        yield {name: "\n".join(parts) for name, parts in record.items()}


def unfold(value: str) -> tuple[str, str]:
    """A Description field as (first line, the rest as plain paragraphs).

    In the long part every line begins with one space and a line of " ." is an empty one.
    Lines that begin with two spaces are lists and keep their own line.
    """
    first, _, rest = value.partition("\n")
    paragraphs: list[str] = []
    fresh = True
    for line in rest.split("\n") if rest else []:
        text = line[1:]
        if text.strip() in ("", "."):
            fresh = True
        elif fresh or text.startswith(" "):
            paragraphs.append(text.strip())
            fresh = False
        else:
            paragraphs[-1] += " " + text.strip()
    return first.strip(), "\n".join(paragraphs)


# Sections that hold material to build with, not programs to start.
LIBRARY_SECTIONS = frozenset(
    "cli-mono gnu-r golang haskell introspection java javascript libdevel libs lisp ocaml "
    "oldlibs perl php python ruby rust zope".split()
)
DATA_SECTIONS = frozenset("debug fonts kernel localization metapackages tasks".split())
LIBRARY_ROLES = ("role::shared-lib", "role::devel-lib", "role::plugin")
DATA_ROLES = ("role::app-data", "role::data", "role::debug-symbols", "role::dummy")


def kind_of(name: str, section: str, tags: str) -> str:
    """What a package is: program, library, documentation or data.

    Debian's own role tags decide where a package has them; otherwise its section and the end
    of its name.
    """
    section = section.rpartition("/")[2]
    if section == "doc" or name.endswith(("-doc", "-docs")):
        return "documentation"
    if name.endswith(("-data", "-common", "-dbg", "-dbgsym")):
        return "data"
    if name.endswith("-dev"):
        return "library"
    if "role::program" in tags:
        return "program"
    if "role::documentation" in tags:
        return "documentation"
    if any(role in tags for role in LIBRARY_ROLES):
        return "library"
    if any(role in tags for role in DATA_ROLES):
        return "data"
    if section in LIBRARY_SECTIONS:
        return "library"
    return "data" if section in DATA_SECTIONS else "program"


def rows(packages: Iterable[str], long_texts: dict[str, str]) -> Iterator[Row]:
    """Rows of the table from the lines of package indexes.

    `long_texts` maps a Description-md5 to the long description. A name that comes twice (an
    update beside the release, another architecture) counts once, the first time.
    """
    seen: set[str] = set()
    for record in stanzas(packages):
        name = record.get("package", "")
        summary, text = unfold(record.get("description") or record.get("description-en") or "")
        if not name or not summary or name in seen:
            continue
        seen.add(name)
        text = text or long_texts.get(record.get("description-md5", ""), "")
        section = record.get("section", "").rpartition("/")[2] or "misc"
        size = record.get("installed-size", "")
        yield (
            name,
            summary,
            f"{summary}\n{text}" if text else summary,
            section,
            kind_of(name, section, record.get("tag", "")),
            record.get("homepage") or None,
            int(size) if re.fullmatch(r"[0-9]{1,15}", size) else None,
        )


def translations(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(Description-md5, long description) for each record of a translation index."""
    for record in stanzas(lines):
        md5 = record.get("description-md5")
        text = unfold(record.get("description-en", ""))[1]
        if md5 and text:
            yield md5, text


# --- where the indexes are -----------------------------------------------------------------------


def apt_targets(created_by: str) -> list[str]:
    """Paths of the index files apt has fetched; `created_by` is Packages or Translations."""
    command = ["apt-get", "indextargets", "--format", "$(LANGUAGE) $(FILENAME)"]
    try:
        done = subprocess.run(
            [*command, f"Created-By: {created_by}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    except FileNotFoundError:
        raise CatalogueError(
            "apt-get is not here: the catalogue is made from Debian's package lists. "
            "On another system give one: catalogue.py --packages FILE"
        ) from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise CatalogueError(f"apt-get cannot tell where its package lists are: {error}") from None
    found = []
    for line in done.stdout.splitlines():
        language, _, path = line.partition(" ")
        if created_by == "Translations" and language != "en":
            continue
        found.append(path)
    return found


@contextlib.contextmanager
def open_index(path: str) -> Iterator[Iterable[str]]:
    """The lines of an index, whichever way apt has compressed it."""
    if not path.endswith((".lz4", ".xz", ".gz", ".bz2", ".zst")):
        try:
            plain = open(path, encoding="utf-8", errors="replace")
        except OSError as error:
            raise CatalogueError(f"cannot read {path}: {error.strerror}") from None
        with plain:
            yield plain
        return
    try:
        reader = subprocess.Popen(
            [APT_HELPER, "cat-file", path],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise CatalogueError(
            f"{APT_HELPER} is not here, and {path} is compressed; unpack it and try again"
        ) from None
    assert reader.stdout is not None
    try:
        yield reader.stdout
        reader.stdout.read()
    finally:
        reader.stdout.close()
        status = reader.wait()
    if status != 0:
        raise CatalogueError(f"apt-helper could not read {path} (exit {status})")


def lines_of(paths: Iterable[str]) -> Iterator[str]:
    """All lines of several indexes, one after the other, with a record's end between them."""
    for path in paths:
        with open_index(path) as lines:
            yield from lines
        yield "\n"


# --- progress ------------------------------------------------------------------------------------


class Progress:
    """A bar on a terminal; elsewhere one line at each quarter, so that a log stays short."""

    WIDTH = 32

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self.total = max(total, 1)
        self.out = out or sys.stderr
        self.bar = self.out.isatty()
        self.step = -1

    def at(self, count: int) -> None:
        """Show that `count` of the total are done. Cheap when nothing visible changes."""
        percent = min(100, count * 100 // self.total)
        step = percent if self.bar else percent // 25
        if step == self.step:
            return
        self.step = step
        if self.bar:
            full = percent * self.WIDTH // 100
            print(
                f"\rcatalogue [{'#' * full}{'.' * (self.WIDTH - full)}] {percent:3d} %"
                f"  {count:,} packages",
                end="",
                file=self.out,
                flush=True,
            )
        elif step > 0:
            print(f"catalogue: {percent} %, {count:,} packages", file=self.out, flush=True)

    def end(self, text: str) -> None:
        """Finish with a line of its own."""
        print(("\n" if self.bar else "") + f"catalogue: {text}", file=self.out, flush=True)


# --- building ------------------------------------------------------------------------------------


def is_ready(path: Path = DEFAULT_PATH) -> bool:
    """Is there a catalogue of this schema at `path`? Never creates a file."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(connect(path)) as db:
            return db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    except sqlite3.Error:
        return False


def connect(path: Path) -> sqlite3.Connection:
    """A read-only connection that any one thread at a time may use."""
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def ensure(path: Path = DEFAULT_PATH, out: TextIO | None = None) -> None:
    """Build the catalogue from apt's lists unless it is there already."""
    if not is_ready(path):
        build(path, out=out, only_if_missing=True)


def build(
    path: Path = DEFAULT_PATH,
    packages: list[str] | None = None,
    translated: list[str] | None = None,
    out: TextIO | None = None,
    only_if_missing: bool = False,
) -> int:
    """Write the catalogue to `path`; returns the number of packages.

    `packages` and `translated` are index files; without them apt is asked for its own.
    Raises CatalogueError, and then leaves an older catalogue as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(path.name + ".lock"), "w", encoding="ascii")
    except OSError as error:
        raise CatalogueError(f"cannot write to {path.parent}: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if only_if_missing and is_ready(path):
            return 0
        if packages is None:
            packages = [name for name in apt_targets("Packages") if os.path.exists(name)]
            translated = [name for name in apt_targets("Translations") if os.path.exists(name)]
            if not packages:
                raise CatalogueError(
                    "apt has no package lists on this machine; fetch them with: "
                    "sudo apt-get update"
                )
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            count = write(part, packages, translated or [], out)
            os.replace(part, path)
        except sqlite3.Error as error:
            raise CatalogueError(f"SQLite could not write {part}: {error}") from None
        finally:
            part.unlink(missing_ok=True)
        return count


def write(part: Path, packages: list[str], translated: list[str], out: TextIO | None) -> int:
    """Fill a new database file and return the number of packages in it."""
    begun = time.monotonic()
    total = sum(1 for line in lines_of(packages) if line.startswith("Package:"))
    if not total:
        raise CatalogueError(
            "the package lists are empty; fetch them again with: sudo apt-get update"
        )
    long_texts = dict(translations(lines_of(translated)))
    progress = Progress(total, out)
    progress.at(0)
    count = 0
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as db:
        # Nothing needs to survive a crash before the rename: a half-written file is thrown away.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        try:
            db.executescript(SCHEMA)
        except sqlite3.OperationalError as error:
            raise CatalogueError(f"this Python's SQLite has no full-text search: {error}") from None
        db.execute("BEGIN")
        for row in rows(lines_of(packages), long_texts):
            db.execute(
                "INSERT INTO packages (name, summary, description, section, kind, homepage,"
                " installed_kib) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            count += 1
            progress.at(count)
        db.execute("INSERT INTO packages_fts (packages_fts) VALUES ('rebuild')")
        db.execute("INSERT INTO packages_fts (packages_fts) VALUES ('optimize')")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    with open(part, "rb") as written:
        os.fsync(written.fileno())
    length = "short and long" if long_texts else "short"
    progress.end(
        f"{count:,} packages, {length} descriptions, in {time.monotonic() - begun:.1f} s"
    )
    return count


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Build the board's catalogue from Debian's package lists."
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_PATH, metavar="FILE")
    parser.add_argument("--packages", action="append", metavar="FILE", help="a Packages index")
    parser.add_argument("--translation", action="append", metavar="FILE", help="a Translation-en")
    parser.add_argument("--if-missing", action="store_true", help="keep one that is there")
    options = parser.parse_args(arguments)
    try:
        build(
            options.output,
            options.packages,
            options.translation,
            only_if_missing=options.if_missing,
        )
    except CatalogueError as error:
        print(f"catalogue: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncatalogue: stopped; nothing was changed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
