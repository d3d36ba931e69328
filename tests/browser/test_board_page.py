"""The board's page in a real browser: it asks, waits, draws, and says what it is.

Screenshots go to the directory in BOARD_SCREENSHOTS, else to pytest's temporary one.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).parents[1] / "e2e")]

import board_helpers as helpers  # noqa: E402
import webdriver  # noqa: E402

pytestmark = [
    pytest.mark.skipif(helpers.server_command() is None, reason="build/weir is not built"),
    pytest.mark.skipif(
        not all(os.access(name, os.X_OK) for name in (webdriver.CHROMIUM, webdriver.CHROMEDRIVER)),
        reason="Debian's chromium and chromium-driver are not installed",
    ),
]

SLOW = "--delay-ai 0.4:0.5 --delay-db 0.01:0.02"
STUCK = "--delay-ai 10 --delay-db 0"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine's own catalogue where it has package lists, else a small one."""
    folder = tmp_path_factory.mktemp("catalogue")
    helpers.import_board()
    import catalogue as maker

    path = folder / "catalogue.db"
    try:
        maker.build(path, out=open(os.devnull, "w"))
        return path
    except maker.CatalogueError:
        return helpers.build_catalogue(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Browser]:
    with webdriver.Browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(scope="module")
def port(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A board whose user may ask for more than three at once: the tests are all one."""
    folder = tmp_path_factory.mktemp("board")
    policy = helpers.other_policy(folder, ("10/min burst 3", "60/min burst 60"))
    with helpers.board(folder, catalogue, "--config", policy, delays=SLOW) as process:
        yield process.port


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("BOARD_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fits(browser: webdriver.Browser) -> bool:
    """Is nothing wider than the window?"""
    return bool(browser.run("return document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_prompt_becomes_a_board(
    browser: webdriver.Browser, port: int, shots: Path, width: int, dark: bool
) -> None:
    name = f"{width}-{'dark' if dark else 'light'}"
    browser.look(width, dark=dark)
    browser.open(f"http://127.0.0.1:{port}/")
    assert "rehearsal" in browser.text(".notes").lower()
    assert "any bearer token is a user" in browser.text(".notes").lower()
    assert fits(browser)
    browser.screenshot(shots / f"{name}-1-empty.png")

    browser.run("document.getElementById('prompt').focus()")
    browser.type("Cut the video of our holiday")
    browser.type(webdriver.ENTER)
    browser.wait("#progress", 5)
    assert browser.visible("#stop") and not browser.visible("#go")
    browser.screenshot(shots / f"{name}-2-waiting.png")

    browser.wait("#board", 30)
    assert not browser.visible("#progress") and not browser.visible("#error")
    assert "video" in browser.text("#title").lower()
    assert "rehearsal" in browser.text("#timings")
    assert browser.run("return document.querySelectorAll('.column h3').length >= 1")
    assert browser.run(
        "return [...document.querySelectorAll('#columns .card')].every("
        "card => card.querySelector('h4').innerText && card.querySelector('p').innerText)"
    )
    assert browser.run("return document.activeElement.id") == "title"
    assert fits(browser)
    browser.screenshot(shots / f"{name}-3-board.png")
    assert browser.complaints() == []


def test_keyboard_alone_is_enough(browser: webdriver.Browser, port: int) -> None:
    browser.look(1280)
    browser.open(f"http://127.0.0.1:{port}/")
    browser.run("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        browser.press(webdriver.TAB)
        focused = "const it = document.activeElement; return it.id || it.className"
        reached.append(browser.run(focused))
    stops = ("skip", "prompt", "token", "go")
    assert tuple(name for name in dict.fromkeys(reached) if name in stops) == stops
    browser.run("document.querySelector('.ideas button').focus()")
    browser.press(webdriver.ENTER)
    assert browser.run("return document.activeElement.id") == "prompt"
    assert browser.run("return document.getElementById('prompt').value")


def test_empty_prompt_is_told_without_asking(browser: webdriver.Browser, port: int) -> None:
    browser.look(1280)
    browser.open(f"http://127.0.0.1:{port}/")
    browser.click("#go")
    browser.wait("#error", 5)
    assert "what you want to do" in browser.text("#error")


def test_a_waiting_request_can_be_stopped(
    browser: webdriver.Browser, catalogue: Path, tmp_path: Path
) -> None:
    with helpers.board(tmp_path, catalogue, delays=STUCK) as process:
        browser.look(1280)
        browser.open(f"http://127.0.0.1:{process.port}/")
        browser.run("document.getElementById('prompt').focus()")
        browser.type("anything" + webdriver.ENTER)
        browser.wait("#stop", 5)
        browser.press(webdriver.ESCAPE)
        webdriver.until("the form", 5, lambda: not browser.visible("#progress"))
        assert not browser.visible("#error") and not browser.visible("#board")
        assert browser.visible("#go") and not browser.visible("#stop")
        # The call still waits inside the application; nobody needs it.
        process.stop(seconds=60)


def test_a_failing_model_is_shown(
    browser: webdriver.Browser, catalogue: Path, tmp_path: Path, shots: Path
) -> None:
    with helpers.refused_port() as dead:
        upstream = {"DEEPSEEK_API_KEY": "x", "DEEPSEEK_BASE_URL": f"http://127.0.0.1:{dead}"}
        with helpers.board(tmp_path, catalogue, delays=SLOW, **upstream) as process:
            browser.look(390)
            browser.open(f"http://127.0.0.1:{process.port}/")
            browser.run("document.getElementById('prompt').focus()")
            browser.type("anything" + webdriver.ENTER)
            browser.wait("#error", 20)
            assert "model API is down" in browser.text("#error")
            assert browser.run("return document.getElementById('error').role") == "alert"
            browser.screenshot(shots / "390-error.png")


def ask_the_page(browser: webdriver.Browser, port: int, width: int) -> str:
    """Open the page, ask for a board, and return the text of the error that comes."""
    browser.look(width)
    browser.open(f"http://127.0.0.1:{port}/")
    browser.complaints()
    browser.run("document.getElementById('prompt').focus()")
    browser.type("anything" + webdriver.ENTER)
    browser.wait("#error", 20)
    assert not browser.visible("#progress") and not browser.visible("#board")
    assert browser.visible("#go") and fits(browser)
    return browser.text("#error")


def test_who_asks_too_often_reads_when_to_come_back(
    browser: webdriver.Browser, catalogue: Path, tmp_path: Path, shots: Path
) -> None:
    policy = helpers.other_policy(tmp_path, ("10/min burst 3", "2/min burst 1"))
    with helpers.board(tmp_path, catalogue, "--config", policy, delays=SLOW) as process:
        assert helpers.build(process.port, "x", token="guest").status == 200
        said = ask_the_page(browser, process.port, 390)
        found = re.fullmatch(r"That was too fast: you have asked often just now\. Ask again in ([0-9]+) s\.", said)
        assert found and 1 <= int(found[1]) <= 30, said
        browser.screenshot(shots / "390-429.png")
        # Another name is another user.
        browser.run("document.getElementById('token').value = 'somebody'")
        browser.click("#go")
        browser.wait("#board", 20)
        assert not browser.visible("#error")


def test_who_finds_a_full_queue_reads_how_long_it_is(
    browser: webdriver.Browser, catalogue: Path, tmp_path: Path, shots: Path
) -> None:
    policy = helpers.other_policy(tmp_path, ("concurrency: 32", "concurrency: 1"), ("size: 100", "size: 2"))
    with helpers.fake_upstream(silent=True) as stuck:
        upstream = {"DEEPSEEK_API_KEY": "x", "DEEPSEEK_BASE_URL": stuck}
        with helpers.board(tmp_path, catalogue, "--config", policy, "--grace", "1s", **upstream) as process:
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                # One place, two that wait, and three that found the queue full.
                calls = [pool.submit(helpers.build, process.port, "x", user) for user in "abcdef"]
                helpers.until("a full queue", lambda: sum(call.done() for call in calls) == 3)
                assert [c.result().status for c in calls if c.done()] == [503] * 3
                said = ask_the_page(browser, process.port, 1280)
                assert re.match(r"Too many boards are being drawn: 2 are waiting before you", said), said
                assert re.search(r"Ask again in [0-9]+ s\.$", said), said
                browser.screenshot(shots / "1280-503.png")
                process.stop(seconds=60)
                for call in calls:
                    call.exception()


def test_a_token_that_nobody_signed_is_told(
    browser: webdriver.Browser, catalogue: Path, tmp_path: Path, shots: Path
) -> None:
    (tmp_path / "jwt.secret").write_text("a secret of more than 32 bytes, for tests")
    env = {"BOARD_JWT_SECRET_FILE": str(tmp_path / "jwt.secret")}
    with helpers.board(tmp_path, catalogue, delays=SLOW, **env) as process:
        browser.look(390)
        browser.open(f"http://127.0.0.1:{process.port}/")
        browser.run("document.getElementById('token').focus()")
        browser.type("me")
        browser.run("document.getElementById('prompt').focus()")
        browser.type("anything" + webdriver.ENTER)
        browser.wait("#error", 20)
        assert browser.text("#error") == "This access token is wrong or has expired."
        browser.screenshot(shots / "390-401.png")
