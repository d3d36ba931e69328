"""docs/logs.md tells all close reasons, atoms and JSON keys that the sources have."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/logs.md").read_text(encoding="utf-8")
ACCESS = (ROOT / "src/obs/access.c").read_text(encoding="utf-8")


def test_each_close_reason_is_a_row():
    text = (ROOT / "src/obs/close_reasons.def").read_text(encoding="utf-8")
    reasons = re.findall(r'^CLOSE_REASON\(\w+, "(\w+)", ([01]), "([^"]+)"\)', text, re.MULTILINE)
    assert len(reasons) == text.count("\nCLOSE_REASON(")
    rows = re.findall(r"^\| `(\w+)` \| (debug|info) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(word, "debug" if quiet == "1" else "info", meaning) for word, quiet, meaning in reasons]


def test_each_atom_is_in_the_table():
    table = ACCESS[ACCESS.index("ATOMS[] = {") : ACCESS.index("ENVIRON[] = {")]
    atoms = re.findall(r'\{"(\w+)", P_', table)
    assert len(atoms) > 20
    page = PAGE[PAGE.index("### Atoms") : PAGE.index("### JSON")]
    assert [a for a in atoms if f"`{a}`" not in page] == []


def test_each_json_key_is_in_the_table():
    keys = re.findall(r'SLICE\("[{,]\\"(\w+)\\":', ACCESS)
    assert len(keys) == 19
    page = PAGE[PAGE.index("### JSON") :]
    assert [k for k in keys if f"`{k}`" not in page] == []
