"""The server fixture of the end-to-end tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from harness import starter  # noqa: E402


@pytest.fixture
def weir(tmp_path):
    """Start servers; see harness.Starter."""
    with starter(tmp_path) as s:
        yield s
