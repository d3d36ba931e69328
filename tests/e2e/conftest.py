"""The fixtures `weir` and `weir_module`: start real servers, and end them. See harness.Starter."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Starter, starter

# Started in the background of a shell we would ignore SIGINT, and every server after us.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def weir(tmp_path: Path) -> Iterator[Starter]:
    """Servers of one test."""
    with starter(tmp_path) as s:
        yield s


@pytest.fixture(scope="module")
def weir_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Servers that the tests of one file share."""
    with starter(tmp_path_factory.mktemp("weir")) as s:
        yield s
