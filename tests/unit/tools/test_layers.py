"""tools/layers finds includes that point the wrong way, and only those."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def layers(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/layers"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


HEADERS = {f"{folder}/a.h": "" for folder in ("base", "conf", "obs", "net", "http", "handler", "wsgi", "jobs", "serve")}


def test_this_repository_points_one_way():
    result = layers()
    assert result.returncode == 0, result.stdout
    assert "all point one way" in result.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("net/x.c", '#include "base/a.h"\n#include "net/a.h"\n#include "conf/a.h"\n'),
        ("conf/x.c", '#include "obs/a.h"\n'),  # obs may be included by everybody
        ("serve/x.c", '#include "wsgi/a.h"\n#include <uv.h>\n'),
        ("main.c", '#include "serve/a.h"\n#include "top.h"\n'),
        ("wsgi/x.c", "#include <Python.h>\n"),
        ("net/tls_openssl.c", "#include <openssl/ssl.h>\n"),
        ("admit/x_openssl.c", "#include <openssl/evp.h>\n#include <jansson.h>\n"),
        ("python_module.c", "#include <Python.h>\n"),
        ("handler/x.c", '#include "weir/weir.h"\n#include <weir/weir.h>\n#include <stdio.h>\n'),
        ("net/x.c", '/* #include "serve/a.h"\n#include "serve/a.h" */\n// #include "serve/a.h"\n'),
        ("net/x.c", 'const char *s = "/*";\n#include "net/a.h"\n'),
        ("net/x_private.h", ""),
        ("http/notes.txt", '#include "serve/a.h"\n'),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, text: str):
    result = layers(tree(tmp_path, {**HEADERS, "top.h": "", file: text}))
    assert result.stdout == ""
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("file", "text", "place", "words"),
    [
        ("net/x.c", '\n#include "http/a.h"\n', "src/net/x.c:2:", "net comes before http"),
        ("base/x.h", '#include "conf/a.h"\n', "src/base/x.h:1:", "base comes before conf"),
        ("base/x.c", '#include "obs/a.h"\n', "src/base/x.c:1:", "base comes before obs"),
        ("conf/x.def", '#include "net/a.h"\n', "src/conf/x.def:1:", "conf comes before net"),
        ("obs/x.c", '#include "conf/a.h"\n', "src/obs/x.c:1:", "obs includes base alone"),
        ("wsgi/x.c", '#include "jobs/a.h"\n', "src/wsgi/x.c:1:", "one step"),
        ("http/x.c", ' # include  "serve/a.h"\n', "src/http/x.c:1:", "http comes before serve"),
        ("http/x.c", '/*\n\n*/ int i;\n#include "serve/a.h"\n', "src/http/x.c:4:", "http comes before"),
        ("http/x.c", 'char *s = "/*";\n#include "serve/a.h"\n', "src/http/x.c:2:", "http comes before"),
        ("net/x.c", '#include "a.h"\n', "src/net/x.c:1:", 'write "net/a.h"'),
        ("net/x.c", '#include "vendor/a.h"\n', "src/net/x.c:1:", "no folder of src/"),
        ("net/x.c", '#include "base/none.h"\n', "src/net/x.c:1:", "does not exist"),
        ("net/x.c", '#include "base/b.c"\n', "src/net/x.c:1:", "no header"),
        ("serve/x.c", '#include "net/b_private.h"\n', "src/serve/x.c:1:", "private to src/net"),
        ("handler/x.c", "#include <Python.h>\n", "src/handler/x.c:1:", "only src/wsgi"),
        ("http/x.h", "#include <uv.h>\n", "src/http/x.h:1:", "only src/net"),
        ("net/x.c", "#include <openssl/ssl.h>\n", "src/net/x.c:1:", "only src/net/tls_openssl.c and"),
        ("admit/x.c", "#include <openssl/evp.h>\n", "src/admit/x.c:1:", "only src/net/tls_openssl.c and src/admit/*_openssl.c"),
        ("admit/x.c", "#include <jansson.h>\n", "src/admit/x.c:1:", "only src/admit/*_openssl.c"),
        ("vendor/x.c", "", "src/vendor:", "has no step"),
    ],
)
def test_what_points_the_wrong_way_is_named(tmp_path: Path, file: str, text: str, place: str, words: str):
    result = layers(tree(tmp_path, {**HEADERS, "base/b.c": "", "net/b_private.h": "", file: text}))
    assert result.returncode == 1
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith(place)
    assert words in result.stdout
    assert "1 point the wrong way" in result.stderr


def test_each_fault_is_a_line(tmp_path: Path):
    result = layers(tree(tmp_path, {**HEADERS, "net/x.c": '#include "http/a.h"\n#include "serve/a.h"\n'}))
    assert [line.split(":")[1] for line in result.stdout.splitlines()] == ["1", "2"]


def test_wrong_usage_is_told_apart(tmp_path: Path):
    assert layers(tmp_path).returncode == 2
    assert layers("a", "b").returncode == 2
    assert layers("--bad").returncode == 2
    assert layers("--help").returncode == 0
