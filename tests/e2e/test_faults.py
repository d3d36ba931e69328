"""Things that break, in their short form; `make fault` runs the same ones long."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import SANITIZED, Starter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fault"))

import scenarios  # noqa: E402

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
plain_build = pytest.mark.skipif(SANITIZED, reason="a sanitizer has allocations of its own")


def held(figures: dict[str, Any]) -> None:
    assert not figures["problems"], figures


def test_a_killed_worker_breaks_only_its_own_requests_and_is_replaced(weir: Starter) -> None:
    # How soon is measured by `make fault` on a machine that does nothing else.
    held(scenarios.kill_workers(scenarios.Site(weir), kills=4, within_s=10))


def test_nobody_keeps_the_port_when_the_supervisor_is_killed(weir: Starter) -> None:
    held(scenarios.kill_supervisor(scenarios.Site(weir), kills=1))


def test_reloads_and_replaced_workers_lose_no_request(weir: Starter) -> None:
    held(scenarios.reload_and_recycle(scenarios.Site(weir), requests=3000))


def test_an_upgrade_loses_no_request(weir: Starter) -> None:
    held(scenarios.upgrades(scenarios.Site(weir), times=1))


def test_more_clients_than_descriptors_neither_spin_nor_flood_the_log(weir: Starter) -> None:
    held(scenarios.few_descriptors(scenarios.Site(weir), seconds=1))


def test_clients_that_connect_and_reset_leave_nothing_behind(weir: Starter) -> None:
    held(scenarios.churn(scenarios.Site(weir), connections=3000))


@plain_build
def test_failing_allocations_are_503_and_never_a_crash(weir: Starter) -> None:
    held(scenarios.failing_allocations(scenarios.Site(weir), requests=3000, per_million=20000))


@plain_build
def test_a_worker_at_its_memory_limit_refuses_large_bodies_and_serves_small_requests(weir: Starter) -> None:
    held(scenarios.memory_limit(scenarios.Site(weir), requests=3))


def test_three_times_its_capacity_leaves_goodput_as_it_was_and_is_refused_early(weir: Starter) -> None:
    # The 50 ms are for a machine that does nothing else: `make fault ONLY=overload`.
    held(scenarios.overload(scenarios.Site(weir), seconds=6, refused_ms=1000))


@needs_root
def test_bodies_that_do_not_fit_on_the_disk_get_503_and_others_go_on(weir: Starter) -> None:
    held(scenarios.disk_full(scenarios.Site(weir), requests=3))
