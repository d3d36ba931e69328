"""What the compiler and the linker left in the files that people run: read from the ELF itself."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
WEIR = BUILD / "weir"
SHARED = sorted((BUILD / "python" / "weir").glob("*.so"))
FILES = [WEIR, *SHARED]

pytestmark = pytest.mark.skipif(not WEIR.exists(), reason="build/weir is missing")
is_x86 = platform.machine() == "x86_64"


def readelf(path: Path, *what: str) -> str:
    return subprocess.run(["readelf", "-W", *what, path], text=True, capture_output=True, check=True).stdout


def disassembly(path: Path) -> str:
    return subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], text=True, capture_output=True,
                          check=True).stdout


def named(path: Path) -> str:
    return path.name.split(".")[0]


def test_the_extension_was_built():
    assert SHARED


@pytest.mark.parametrize("path", FILES, ids=named)
def test_relocations_are_read_only_and_bound_at_start(path):
    assert "GNU_RELRO" in readelf(path, "-l")
    assert re.search(r"\(FLAGS_1\).*\bNOW\b", readelf(path, "-d"))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_segment_is_writable_and_executable(path):
    segments = re.findall(r"^ +(LOAD|GNU_STACK) +(?:0x\w+ +){5}([RWE ]{3})", readelf(path, "-l"), re.M)
    assert ("GNU_STACK", "RW ") in segments
    assert len([kind for kind, _ in segments if kind == "LOAD"]) >= 3  # code is no part of the constants
    assert not [flags for _, flags in segments if "W" in flags and "E" in flags]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_code_needs_no_fixed_address_and_no_search_path(path):
    assert re.search(r"^ +Type: +DYN", readelf(path, "-h"), re.M)
    dynamic = readelf(path, "-d")
    assert not re.search(r"\((TEXTREL|RPATH|RUNPATH)\)", dynamic)
    assert ("PIE" in dynamic) == (path == WEIR)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_buffers_on_the_stack_are_guarded_and_calls_are_fortified(path):
    symbols = readelf(path, "--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert "__snprintf_chk" in symbols


@pytest.mark.skipif(not is_x86, reason="control-flow marks are looked for on x86-64 alone")
@pytest.mark.parametrize("path", FILES, ids=named)
def test_targets_of_indirect_calls_are_marked(path):
    """The start files of the C library are not marked, so the property note of the whole file is absent."""
    # TLS, tokens and the keeper are reached by a table of functions alone.
    name = {"weir": "main", "_core": r"PyInit_\w+", "_tls": r"\w+", "_jwt": r"\w+", "_keeper": r"\w+"}[named(path)]
    assert re.search(rf"<{name}>:\n +\w+:\s+endbr64", disassembly(path))


def test_only_needed_libraries_are_linked():
    """libuv, and what conf brings; the executable needs nothing of the loop."""
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\.so", readelf(WEIR, "-d")))
    assert "libc" in needed and "libuv" not in needed
    assert not needed & {"libm", "libdl", "libpthread", "librt"}


def test_the_extension_exports_its_entry_alone():
    for path in SHARED:
        defined = re.findall(r"(?:GLOBAL|WEAK) +(?:DEFAULT|PROTECTED) +(?!UND)\S+ (\S+)", readelf(path, "--dyn-syms"))
        entry = {"_core": "PyInit__core", "_tls": "weir_tls_lib", "_jwt": "weir_jwt_lib", "_keeper": "weir_keeper_lib"}
        assert defined == [entry[named(path)]], path.name


def test_release_flags_are_given():
    """Where the ELF cannot tell: the value of FORTIFY, initialised locals, what may not be optimised away."""
    commands = [c["command"] for c in json.loads((BUILD / "compile_commands.json").read_text())
                if "src/serve/exchange.c" in c["file"]]
    assert len(commands) == 1
    words = commands[0].split()
    for flag in ("-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fno-delete-null-pointer-checks",
                 "-fno-strict-overflow", "-fno-strict-aliasing"):
        assert flag in words
    if is_x86:
        assert "-fstack-clash-protection" in words
    gcc = "clang" not in subprocess.run([words[0], "--version"], text=True, capture_output=True).stdout
    assert ("-ftrivial-auto-var-init=zero" in words) or not gcc
