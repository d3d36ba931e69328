"""The keeper of a real server: it comes with quotas, is replaced, follows reloads, and outlives nobody."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from harness import Server, Starter, wait_for

QUOTA = """\
store: {store}
identify:
  - bearer
tiers: {{default: free}}
routes:
  - match: POST /api/*
    require: user
    quota: {{free: 3/day}}
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def the_keeper(server: Server, but: int = 0) -> int:
    def one() -> int:
        pids = server.keeper_pids()
        return pids[0] if len(pids) == 1 and pids[0] != but else 0

    return wait_for(one, what="one keeper")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "weir.yaml"
    path.write_text(QUOTA.format(store=tmp_path / "q.db"))
    return path


def test_without_quotas_there_is_no_keeper(weir: Starter) -> None:
    server = weir("basic:app", workers=1)
    assert server.keeper_pids() == [] and len(server.worker_pids()) == 1


def test_the_supervisor_and_workers_map_neither_sqlite_nor_curl(weir: Starter, config: Path) -> None:
    server = weir("basic:app", "--config", str(config), workers=2)
    keeper = the_keeper(server)
    wait_for(lambda: "sqlite3" in Path(f"/proc/{keeper}/maps").read_text(), what="the keeper has loaded its library")
    for pid in (server.pid, *server.worker_pids()):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "sqlite3" not in maps and "libcurl" not in maps and "_keeper.so" not in maps
    wait_for((config.parent / "q.db").exists, what="the store")
    assert (config.parent / "q.db").stat().st_mode & 0o777 == 0o600


def test_a_killed_keeper_is_replaced(weir: Starter, config: Path) -> None:
    server = weir("basic:app", "--config", str(config), workers=1)
    for _ in range(3):
        before = the_keeper(server)
        os.kill(before, signal.SIGKILL)
        assert the_keeper(server, but=before)
    assert server.get("/").status == 200


def test_a_reload_keeps_the_keeper_unless_its_configuration_changed(weir: Starter, config: Path) -> None:
    server = weir("basic:app", "--config", str(config), workers=1)
    first = the_keeper(server)
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 1 new workers serve")
    assert the_keeper(server) == first
    config.write_text(QUOTA.format(store=config.parent / "other.db"))
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: 1 new workers serve", count=2)
    assert the_keeper(server, but=first)
    wait_for((config.parent / "other.db").exists, what="the other store")
    config.write_text("")
    server.kill(signal.SIGHUP)
    wait_for(lambda: server.keeper_pids() == [], what="no keeper")


def test_it_ends_with_the_server_and_leaves_one_file_in_order(weir: Starter, config: Path) -> None:
    server = weir("basic:app", "--config", str(config), workers=2)
    keeper = the_keeper(server)
    wait_for((config.parent / "q.db-wal").exists, what="the store is open")
    assert server.stop() == 0
    assert gone(keeper)
    assert not (config.parent / "q.db-wal").exists()


def test_it_does_not_outlive_a_killed_supervisor(weir: Starter, config: Path) -> None:
    server = weir("basic:app", "--config", str(config), workers=2)
    keeper = the_keeper(server)
    server.expected_status = (-9,)
    server.kill(signal.SIGKILL)
    wait_for(lambda: gone(keeper), what="the keeper has ended")


def test_a_store_that_cannot_be_used_is_told_and_the_rest_serves(weir: Starter, config: Path) -> None:
    (config.parent / "q.db").write_text("this is a letter\n" * 1000)
    server = weir("basic:app", "--config", str(config), workers=1)
    server.wait_log("restore a copy, or let Weir make a new one")
    assert server.get("/").status == 200
