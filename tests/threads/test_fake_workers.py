"""Several workers with an application in C (tests/tools/fake_workers.c): hand-over, run-timeout, streams, under TSan.

What becomes of each request is counted by tests/tools/loss.py; every report of the sanitizer fails the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("WEIR_BUILD", "build")
sys.path.insert(0, str(ROOT / "tests" / "tools"))
import loss  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def program() -> None:
    """The built fake_workers."""
    subprocess.run(["ninja", "-C", str(BUILD), "--quiet", "tests/unit/fake_workers"], check=True)


def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenario: str, *settings: str) -> loss.Account:
    """Run it; fails on a report of the sanitizer, which every process writes into a file of its own."""
    options = os.environ.get("TSAN_OPTIONS", "")
    monkeypatch.setenv("TSAN_OPTIONS", f"{options}:halt_on_error=0:log_path={tmp_path}/tsan")
    a = loss.run(scenario, 5000, 32, 2, fake=True, settings=settings, keep_alive=0.5)
    reports = sorted(tmp_path.glob("tsan.*"))
    assert not reports, reports[0].read_text()[:6000]
    return a


@pytest.mark.parametrize("scenario", ["reload", "recycle", "term"])
def test_nothing_is_lost_between_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenario: str) -> None:
    a = account(monkeypatch, tmp_path, scenario)
    assert not a.bad, f"{a}\n" + "\n".join(a.notes)
    assert a.answered > 2000


def test_runs_that_take_too_long_race_with_their_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a = account(monkeypatch, tmp_path, "reload", "--run-timeout=30ms")
    assert not (a.lost or a.refused or a.early), f"{a}\n" + "\n".join(a.notes)
    assert a.wrong and all("504 Gateway" in note for note in a.notes if "wrong" in note)


def test_deadlines_race_with_the_queue_the_run_and_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a = account(monkeypatch, tmp_path, "reload", "--deadline=30ms", "--on-deadline=interrupt")
    assert not (a.lost or a.refused or a.early), f"{a}\n" + "\n".join(a.notes)
    assert a.wrong and all("504 Gateway" in note for note in a.notes if "wrong" in note)
