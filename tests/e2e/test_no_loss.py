"""No request is lost: clients that never try again, under reload, recycling and stop. See tests/tools/loss.py.

Short forms; `make fault` runs them with 100,000 requests.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import loss  # noqa: E402

REQUESTS = 6000


def account(scenario: str, workers: int = 2, *settings: str, seed: int = 1) -> loss.Account:
    a = loss.run(scenario, REQUESTS, 48, workers, settings=list(settings), keep_alive=0.6, seed=seed)
    assert not a.bad, f"{a}\n" + "\n".join(a.notes)
    assert a.sent == a.answered
    return a


def test_reloads_lose_no_request() -> None:
    a = account("reload")
    assert a.answered == REQUESTS and a.replaced == 6


@pytest.mark.parametrize("why", ["recycle", "lifetime"])
def test_workers_that_are_replaced_lose_no_request(why: str) -> None:
    a = account(why)
    assert a.answered == REQUESTS and a.replaced >= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_loses_no_request(workers: int) -> None:
    assert account("term", workers).answered > 1000


def test_keep_alive_loses_no_request() -> None:
    a = account("none", 1)
    assert a.closed_idle > 0, "no connection idled until it was closed"

