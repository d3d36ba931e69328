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


def account(scenario: str, workers: int = 2, churn: bool = False) -> loss.Account:
    a = loss.run(scenario, REQUESTS, 48, workers, keep_alive=0.6, churn=churn)
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


@pytest.mark.parametrize("churn", [False, True], ids=["kept", "churn"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_loses_no_request(workers: int, churn: bool) -> None:
    assert account("term", workers, churn).answered > 1000


def test_a_reload_loses_no_new_connection() -> None:
    assert account("reload", churn=True).answered == REQUESTS


def test_an_upgrade_loses_no_request() -> None:
    assert account("upgrade").answered == REQUESTS


def test_keep_alive_loses_no_request() -> None:
    a = account("none", 1)
    assert a.closed_idle > 0, "no connection idled until it was closed"

