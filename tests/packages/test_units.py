"""The units of deploy/systemd, by what systemd itself says of them. (test_debian.py runs them.)"""

from __future__ import annotations

import configparser
import re
import shutil
from pathlib import Path

import pytest
from package_helpers import ROOT, run

UNITS = ROOT / "deploy/systemd"

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def shop(tmp_path) -> Path:
    """The units of one instance, with the command of the build tree."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/weir", str(ROOT / "build/weir"))
        (tmp_path / unit.name.replace("@", "@shop")).write_text(text)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_systemd
def test_systemd_understands_every_line(shop):
    assert run("systemd-analyze", "verify", "--man=no", shop / "weir@shop.service", shop / "weir@shop.socket") == ""


@needs_systemd
def test_a_misspelt_line_would_be_found(shop):
    unit = shop / "weir@shop.service"
    unit.write_text(unit.read_text().replace("PrivateTmp", "PrivateTemp"))
    assert "PrivateTemp" in run("systemd-analyze", "verify", "--man=no", unit)


@needs_systemd
def test_the_exposure_is_at_most_two(shop):
    # In tenths; the command fails above it.
    said = run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", shop / "weir@shop.service")
    score = re.search(r"Overall exposure level for weir@shop.service: ([\d.]+)", said)
    assert score and float(score[1]) <= 2.0


def service() -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / "weir@.service")
    return dict(parser["Service"])


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(s|min|)", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "min" else 1)


def test_a_stop_is_given_more_time_than_the_grace():
    rows = (ROOT / "src/conf/settings.def").read_text()
    grace = re.search(r'SETTING\(grace, TIME, "grace", "(\d+)s"', rows)
    assert grace and seconds(service()["TimeoutStopSec"]) > int(grace[1]) + 10
    assert service()["KillMode"] == "mixed", "the supervisor ends its workers"


def test_the_supervisor_is_watched_and_started_again():
    unit = service()
    assert unit["Type"] == "notify" and unit["NotifyAccess"] == "main" and unit["Restart"] == "always"
    assert seconds(unit["WatchdogSec"]) >= 10
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
