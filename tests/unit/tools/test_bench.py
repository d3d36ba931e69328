"""What bench/harness gives to the servers that it measures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def servers(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    yield importlib.import_module("harness.servers")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "harness":
            del sys.modules[name]


def test_servers_keep_bytecode_whatever_the_caller_does(servers, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    env = servers.environment(str(tmp_path))
    assert "PYTHONDONTWRITEBYTECODE" not in env and "PYTHONOPTIMIZE" not in env
    assert env["PYTHONPYCACHEPREFIX"].startswith(str(tmp_path))
