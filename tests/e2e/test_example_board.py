"""The board example from end to end: its catalogue, its rehearsal server, its answers, its scripts.

The parts that need a server run on the command in WEIR, else on build/weir, and are skipped when
there is neither. Everything listens on free ports of 127.0.0.1.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hmac
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import board_helpers as helpers

helpers.import_board()

needs_server = pytest.mark.skipif(
    helpers.server_command() is None, reason="build/weir is not built and WEIR is not set"
)
needs_flask = pytest.mark.skipif(
    subprocess.run(
        [helpers.PYTHON, "-c", "import flask, requests"], stderr=subprocess.DEVNULL
    ).returncode
    != 0,
    reason="python3-flask and python3-requests are not installed",
)

FAST = ("--delay-ai", "0", "--delay-db", "0", "--seed", "1")
KEY = {"apikey": "any", "Authorization": "Bearer any"}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helpers.build_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="module")
def upstream(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a rehearsal server that does not wait."""
    with helpers.rehearsal(tmp_path_factory.mktemp("upstream"), catalogue, *FAST) as process:
        yield process.port


@pytest.fixture(scope="module")
def board(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a board whose upstreams do not wait; the application alone, as under any server."""
    folder = tmp_path_factory.mktemp("board")
    with helpers.board(folder, catalogue, "--config", "", delays=" ".join(FAST)) as process:
        yield process.port


# --- the catalogue -------------------------------------------------------------------------------


def rows(catalogue: Path) -> dict[str, dict[str, Any]]:
    import catalogue as maker

    with maker.connect(catalogue) as db:
        found = db.execute(f"SELECT {', '.join(maker.COLUMNS)} FROM packages").fetchall()
    db.close()
    return {row[1]: dict(zip(maker.COLUMNS, row)) for row in found}


def test_catalogue_holds_each_described_package_once(catalogue: Path) -> None:
    found = rows(catalogue)
    assert sorted(found) == [
        "converter",
        "filmcut",
        "filmcut-data",
        "filmcut-doc",
        "libfilm-dev",
        "recorder",
        "skychart",
        "subtitler",
    ]
    assert found["filmcut"]["summary"] == "video editor for short films"
    assert found["filmcut"]["homepage"] == "https://example.org/filmcut"
    assert found["filmcut"]["installed_kib"] == 2048
    assert found["subtitler"]["installed_kib"] is None
    assert found["subtitler"]["section"] == "video"


def test_catalogue_takes_long_descriptions_from_either_place(catalogue: Path) -> None:
    found = rows(catalogue)
    assert found["filmcut"]["description"] == (
        "video editor for short films\nCuts films with a timeline.\nRenders them as well."
    )
    assert found["subtitler"]["description"] == (
        "subtitle editor\nSubtitles are lines of text under a film. They have times.\n"
        "It knows:\n* three formats\n* two speeds"
    )
    assert found["skychart"]["description"] == found["skychart"]["summary"]


def test_catalogue_knows_what_a_package_is(catalogue: Path) -> None:
    kinds = {name: row["kind"] for name, row in rows(catalogue).items()}
    assert kinds["filmcut"] == "program"
    assert kinds["filmcut-data"] == "data"
    assert kinds["filmcut-doc"] == "documentation"
    assert kinds["libfilm-dev"] == "library"
    assert kinds["skychart"] == "program"


def test_catalogue_fails_with_the_cure_when_there_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "apt.conf").write_text(
        f'Dir::State::Lists "{tmp_path}/lists"; Dir::Etc::SourceList "/dev/null";'
        'Dir::Etc::SourceParts "/dev/null";'
    )
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "catalogue.py"), "--output", str(tmp_path / "c.db")],
        env=helpers.clean_env(APT_CONFIG=str(tmp_path / "apt.conf")),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "apt-get update" in done.stderr
    assert not (tmp_path / "c.db").exists()


def test_failed_build_leaves_the_old_catalogue(tmp_path: Path) -> None:
    path = helpers.build_catalogue(tmp_path)
    before = path.read_bytes()
    (tmp_path / "Packages").write_text("nothing of use\n")
    with pytest.raises(subprocess.CalledProcessError):
        helpers.build_catalogue(tmp_path, packages="nothing of use\n")
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_progress_is_short_where_there_is_no_terminal(tmp_path: Path) -> None:
    many = "".join(f"Package: p{i}\nDescription: number {i}\n\n" for i in range(1000))
    (tmp_path / "Packages").write_text(many)
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "catalogue.py")]
        + ["--packages", str(tmp_path / "Packages"), "--output", str(tmp_path / "c.db")],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert "\r" not in done.stderr and done.stderr.count("\n") <= 5
    assert "1,000 packages" in done.stderr


# --- the rehearsal server: chat completions ------------------------------------------------------


def chat(port: int, request: Any, key: str | None = "any") -> helpers.Answer:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    body = request if isinstance(request, (str, bytes)) else json.dumps(request)
    return helpers.ask(port, "POST", "/v1/chat/completions", body, headers)


def plan_request(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "any",
        "messages": [{"role": "system", "content": "plan"}, {"role": "user", "content": prompt}],
        "response_format": {"type": "json_object"},
        **more,
    }


def test_chat_answers_a_plan_in_the_protocols_shape(upstream: int) -> None:
    reply = chat(upstream, plan_request("cut a video"))
    assert reply.status == 200 and reply.headers["x-rehearsal"] == "yes"
    answer = reply.json()
    assert answer["object"] == "chat.completion" and answer["model"] == "rehearsal"
    assert isinstance(answer["created"], int) and answer["id"]
    (choice,) = answer["choices"]
    assert choice["index"] == 0 and choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    plan = json.loads(choice["message"]["content"])
    assert plan["title"] and 1 <= len(plan["columns"]) <= 4
    for column in plan["columns"]:
        assert column["name"] and column["kind"] and 1 <= len(column["queries"]) <= 2


def test_chat_selects_only_from_the_candidates(upstream: int) -> None:
    candidates = [
        {"id": 1, "name": "filmcut", "summary": "video editor"},
        {"id": 2, "name": "filmcut-data", "summary": "video editor data"},
        {"id": 3, "name": "abacus", "summary": "calculator"},
    ]
    columns = [{"name": "Cut", "queries": ["video editor"], "candidates": candidates}]
    asked = json.dumps({"prompt": "cut a video", "columns": columns})
    reply = chat(upstream, plan_request(asked)).json()
    (column,) = json.loads(reply["choices"][0]["message"]["content"])["columns"]
    assert column["name"] == "Cut"
    assert column["cards"][0]["id"] == 1 and "video" in column["cards"][0]["why"]
    # A package that belongs to another adds nothing to a board.
    assert 2 not in [card["id"] for card in column["cards"]]


def test_chat_without_json_mode_says_what_it_is(upstream: int) -> None:
    request = plan_request("hello")
    del request["response_format"]
    assert "rehearsal" in chat(upstream, request).json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_chat_streams_the_same_answer_in_pieces(upstream: int, version: str) -> None:
    request = plan_request("cut a video", stream=True, stream_options={"include_usage": True})
    body = json.dumps(request).encode()
    head = (
        f"POST /chat/completions {version}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer k\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", upstream), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 200
        assert reply.headers.get_content_type() == "text/event-stream"
        assert (reply.headers["Transfer-Encoding"] == "chunked") is (version == "HTTP/1.1")
        text = reply.read().decode()
    events = text.split("\n\n")
    assert events.pop() == "" and all(event.startswith("data: ") for event in events)
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    *parts, last = chunks
    assert last["choices"] == [] and last["usage"]["total_tokens"] > 0
    assert all(part["usage"] is None for part in parts)
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    finishes = [part["choices"][0]["finish_reason"] for part in parts]
    assert finishes == [None] * (len(parts) - 1) + ["stop"]
    whole = chat(upstream, plan_request("cut a video")).json()["choices"][0]["message"]["content"]
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == whole


def test_chat_stream_sends_usage_only_when_asked(upstream: int) -> None:
    text = chat(upstream, plan_request("cut a video", stream=True)).body.decode()
    assert text.endswith("data: [DONE]\n\n") and "usage" not in text


@pytest.mark.parametrize(
    "request_body, param",
    [
        ('{"model": ', None),
        ("[]", None),
        ('{"messages": [{"role": "user", "content": "x"}]}', "model"),
        ('{"model": "m", "messages": []}', "messages"),
        ('{"model": "m", "messages": ["x"]}', "messages"),
        ('{"model": "m", "messages": [{"role": "user", "content": 1}]}', "messages"),
        ('{"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": 1}', "stream"),
    ],
)
def test_chat_refuses_what_it_cannot_read(
    upstream: int, request_body: str, param: str | None
) -> None:
    reply = chat(upstream, request_body)
    assert reply.status == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"] == param
    assert error["message"] and "code" in error


@pytest.mark.parametrize("key", [None, "", "   "])
def test_chat_without_a_key_is_401(upstream: int, key: str | None) -> None:
    reply = chat(upstream, plan_request("x"), key)
    assert reply.status == 401 and reply.json()["error"]["type"] == "authentication_error"


def test_unknown_paths_and_methods_are_answered(upstream: int) -> None:
    assert helpers.ask(upstream, "GET", "/").status == 404
    assert helpers.ask(upstream, "GET", "/v1/chat/completions").status == 405
    assert helpers.ask(upstream, "POST", "/nowhere", "{}").status == 404


def test_same_seed_gives_the_same_waits() -> None:
    import rehearsal

    first, second = rehearsal.Delay((2, 4), 7), rehearsal.Delay((2, 4), 7)
    waits = [first.draw() for _ in range(20)]
    assert waits == [second.draw() for _ in range(20)]
    assert all(2 <= wait <= 4 for wait in waits) and len(set(waits)) == 20


def test_hundred_waiting_calls_take_the_time_of_one(catalogue: Path, tmp_path: Path) -> None:
    options = ("--delay-ai", "1", "--delay-db", "0")
    with helpers.rehearsal(tmp_path, catalogue, *options) as process:
        begun = time.monotonic()
        assert chat(process.port, plan_request("x")).status == 200
        one = time.monotonic() - begun
        assert one >= 1
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            begun = time.monotonic()
            calls = [pool.submit(chat, process.port, plan_request("x")) for _ in range(100)]
            assert {call.result().status for call in calls} == {200}
        assert time.monotonic() - begun < 5 * one


def test_rehearsal_ends_on_sigterm(catalogue: Path, tmp_path: Path) -> None:
    with helpers.rehearsal(tmp_path, catalogue) as process:
        assert process.stop(signal.SIGTERM) == 0


# --- the rehearsal server: PostgREST -------------------------------------------------------------


def rest(
    port: int, *params: tuple[str, str], table: str = "packages", **headers: str
) -> helpers.Answer:
    path = f"/rest/v1/{table}?{urllib.parse.urlencode(params)}"
    return helpers.ask(port, "GET", path, headers={**KEY, **headers})


def names(reply: helpers.Answer) -> list[str]:
    assert reply.status in (200, 206), reply.body
    return [row["name"] for row in reply.json()]


BY_NAME = (("select", "name"), ("order", "name"))


def test_select_gives_the_columns_asked_for(upstream: int) -> None:
    reply = rest(upstream, ("select", "title:name,kind"), ("name", "eq.skychart"))
    assert reply.json() == [{"title": "skychart", "kind": "program"}]
    assert reply.headers["content-range"] == "0-0/*" and reply.headers["x-rehearsal"] == "yes"
    every = rest(upstream, ("name", "eq.skychart")).json()
    assert set(every[0]) >= {"id", "name", "summary", "description", "section", "kind"}


@pytest.mark.parametrize(
    "column, value, expected",
    [
        ("name", "eq.filmcut", ["filmcut"]),
        ("kind", "neq.program", ["filmcut-data", "filmcut-doc", "libfilm-dev"]),
        ("installed_kib", "gt.10", ["filmcut"]),
        ("installed_kib", "gte.10", ["filmcut", "filmcut-data"]),
        ("installed_kib", "lt.2048", ["filmcut-data"]),
        ("installed_kib", "lte.2048", ["filmcut", "filmcut-data"]),
        ("homepage", "not.is.null", ["filmcut"]),
        ("name", "like.film*", ["filmcut", "filmcut-data", "filmcut-doc"]),
        ("name", "like.FILM*", []),
        ("name", "ilike.*CUT", ["filmcut"]),
        ("name", "not.ilike.*film*", ["converter", "recorder", "skychart", "subtitler"]),
        ("name", 'in.(filmcut,"skychart",none)', ["filmcut", "skychart"]),
        ("description", "fts.video & !(editor)", ["converter", "libfilm-dev"]),
        ("description", "fts.planet | recorder", ["recorder", "skychart"]),
        ("description", "fts.subtit:*", ["subtitler"]),
        ("description", "fts.video <-> converter", ["converter"]),
        ("description", "plfts(english).edits videos", ["libfilm-dev"]),
        ("description", "phfts.video editor", ["filmcut", "filmcut-data", "filmcut-doc"]),
        ("description", "wfts(english).video -converter -short", ["filmcut-doc", "libfilm-dev"]),
        ("description", 'wfts."media player" or planetarium', ["recorder", "skychart"]),
        ("description", "wfts.the stars of a planet", ["skychart"]),
        ("description", "wfts.timeline", ["filmcut"]),
        ("description", "wfts.the", []),
        ("description", "not.wfts.video", ["recorder", "skychart", "subtitler"]),
        ("summary", "wfts.timeline", []),
        ("summary", "wfts.100 %", ["converter"]),
    ],
)
def test_filters_find_the_right_rows(
    upstream: int, column: str, value: str, expected: list[str]
) -> None:
    assert names(rest(upstream, *BY_NAME, (column, value))) == expected


def test_best_match_comes_first_without_an_order(upstream: int) -> None:
    found = names(rest(upstream, ("select", "name"), ("description", "wfts.subtitle editor")))
    assert found[0] == "subtitler"


def test_limit_offset_order_and_range(upstream: int) -> None:
    order = (("select", "name"), ("order", "name.desc"))
    assert names(rest(upstream, *order, ("limit", "2"))) == ["subtitler", "skychart"]
    page = rest(upstream, *order, ("limit", "2"), ("offset", "1"))
    assert names(page) == ["skychart", "recorder"] and page.headers["content-range"] == "1-2/*"
    ranged = rest(upstream, *order, Range="1-2", Prefer="count=exact")
    assert ranged.status == 206 and names(ranged) == ["skychart", "recorder"]
    assert ranged.headers["content-range"] == "1-2/8"
    whole = rest(upstream, *order, Prefer="count=exact")
    assert whole.status == 200 and whole.headers["content-range"] == "0-7/8"
    nulls = rest(upstream, ("select", "name"), ("order", "installed_kib.desc.nullslast"))
    assert names(nulls)[:2] == ["filmcut", "filmcut-data"]
    none = rest(upstream, ("name", "eq.nothing"))
    assert none.json() == [] and none.headers["content-range"] == "*/*"


def test_one_object_can_be_asked_for(upstream: int) -> None:
    single = "application/vnd.pgrst.object+json"
    reply = rest(upstream, ("select", "name"), ("name", "eq.filmcut"), Accept=single)
    assert reply.json() == {"name": "filmcut"}
    several = rest(upstream, ("select", "name"), Accept=single)
    assert several.status == 406 and several.json()["code"] == "PGRST116"


@pytest.mark.parametrize(
    "params, status, code",
    [
        ([("select", "nothing")], 400, "42703"),
        ([("select", "name,(")], 400, "PGRST100"),
        ([("nothing", "eq.1")], 400, "42703"),
        ([("name", "like")], 400, "PGRST100"),
        ([("name", "sounds.like")], 400, "PGRST100"),
        ([("id", "eq.seven")], 400, "22P02"),
        ([("limit", "-1")], 400, "22P02"),
        ([("order", "nothing.asc")], 400, "42703"),
        ([("order", "name.sideways")], 400, "PGRST100"),
        ([("or", "(id.eq.1,id.eq.2)")], 400, "PGRST100"),
        ([("description", "fts.two words")], 400, "42601"),
        ([("description", "fts.(open")], 400, "42601"),
        ([("id", "wfts.video")], 404, "42883"),
    ],
)
def test_errors_have_postgrests_shape(
    upstream: int, params: list[tuple[str, str]], status: int, code: str
) -> None:
    reply = rest(upstream, *params)
    assert reply.status == status
    body = reply.json()
    assert set(body) == {"code", "details", "hint", "message"}
    assert body["code"] == code and body["message"]


def test_other_errors_of_the_database(upstream: int) -> None:
    missing = rest(upstream, table="nothing")
    assert missing.status == 404 and missing.json()["code"] == "PGRST205"
    beyond = rest(upstream, Range="500-510", Prefer="count=exact")
    assert beyond.status == 416 and beyond.json()["code"] == "PGRST103"
    backwards = rest(upstream, Range="9-3")
    assert backwards.status == 416
    assert helpers.ask(upstream, "GET", "/rest/v1/packages").status == 401
    written = helpers.ask(upstream, "POST", "/rest/v1/packages", "{}", KEY)
    assert written.status == 405 and written.json()["code"] == "PGRST117"
    head = helpers.ask(upstream, "HEAD", "/rest/v1/packages?limit=1", headers=KEY)
    assert head.status == 200 and head.body == b"" and head.headers["content-range"] == "0-0/*"


# --- the application -----------------------------------------------------------------------------


def post(port: int, body: bytes | str | None, token: str | None = "tester") -> helpers.Answer:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = token if " " in token else f"Bearer {token}"
    return helpers.ask(port, "POST", "/api/ai/build-board", body, headers)


def assert_error(reply: helpers.Answer, status: int, *words: str) -> None:
    """An error is JSON with a text that names the cause."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"].startswith("application/json")
    text = reply.json()["error"]
    assert all(word in text for word in words), text


@needs_server
@needs_flask
def test_board_has_the_promised_shape(board: int) -> None:
    reply = helpers.build(board, "cut the video of our holiday", token="somebody")
    assert reply.status == 200, reply.body
    answer = reply.json()
    assert answer["title"] and answer["rehearsal"] is True and answer["user"] == "somebody"
    assert answer["columns"]
    for column in answer["columns"]:
        assert set(column) == {"name", "cards"} and column["name"] and column["cards"]
        for card in column["cards"]:
            assert set(card) == {"id", "title", "summary", "why"} and all(card.values())
    assert "filmcut" in [card["title"] for card in answer["columns"][0]["cards"]]
    timings = answer["timings"]
    assert set(timings) == {"ai", "db", "total"}
    assert 0 < timings["ai"] and 0 < timings["db"]
    assert timings["ai"] + timings["db"] <= timings["total"] + 0.01


@needs_server
@needs_flask
def test_prompt_that_fits_nothing_gives_an_empty_board(board: int) -> None:
    reply = helpers.build(board, "qwertzuiop")
    assert reply.status == 200 and reply.json()["columns"] == []


@needs_server
@needs_flask
def test_health_answers_json(board: int) -> None:
    reply = helpers.ask(board, "GET", "/health")
    assert reply.status == 200
    assert reply.json() == {"status": "ok", "app": "board", "rehearsal": True, "open": True}


@needs_server
@needs_flask
def test_page_says_what_it_is_and_needs_nothing_from_outside(board: int) -> None:
    reply = helpers.ask(board, "GET", "/")
    page = reply.body.decode()
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/html")
    assert "This is the rehearsal" in page and "Any bearer token is a user" in page
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    assert links and all(link.startswith("/static/") for link in links)
    for link in links:
        assert helpers.ask(board, "GET", link).status == 200


@needs_server
@needs_flask
@pytest.mark.parametrize("token", [None, "Bearer ", "Basic dXNlcjpwYXNz", "Token abc"])
def test_no_token_is_401(board: int, token: str | None) -> None:
    reply = post(board, '{"prompt": "x"}', token)
    assert_error(reply, 401, "Authorization: Bearer")
    assert reply.headers["www-authenticate"].startswith("Bearer")


@needs_server
@needs_flask
@pytest.mark.parametrize(
    "body",
    ["{}", '{"prompt": ""}', '{"prompt": "  \\n "}', '{"prompt": 7}', '["prompt"]', "null"],
)
def test_empty_or_missing_prompt_is_400(board: int, body: str) -> None:
    assert_error(post(board, body), 400, "prompt")


@needs_server
@needs_flask
@pytest.mark.parametrize("body", ["", "{", '{"prompt": "x"', b"\xff\xfe{}", "[" * 60000])
def test_broken_json_is_400(board: int, body: bytes | str) -> None:
    assert_error(post(board, body), 400, "JSON")


@needs_server
@needs_flask
@pytest.mark.parametrize("prompt", ["\\u0000", "\\ud800"])
def test_characters_that_are_no_text_are_400(board: int, prompt: str) -> None:
    assert_error(post(board, f'{{"prompt": "a{prompt}b"}}'), 400, "characters")


@needs_server
@needs_flask
def test_too_long_is_413(board: int) -> None:
    long_prompt = json.dumps({"prompt": "x" * helpers.LONG_PROMPT_CHARS})
    assert_error(post(board, long_prompt), 413, "2000 characters")
    assert_error(post(board, json.dumps({"prompt": "x" * 70000})), 413, "64 KiB")


@needs_server
@needs_flask
def test_too_long_is_413_without_a_length_too(board: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", board, timeout=20)
    try:
        pieces = (b"x" * 1000 for _ in range(70))
        headers = {"Authorization": "Bearer t"}
        connection.request("POST", "/api/ai/build-board", pieces, headers, encode_chunked=True)
        reply = connection.getresponse()
        assert reply.status == 413 and "64 KiB" in json.loads(reply.read())["error"]
    finally:
        connection.close()


@needs_server
@needs_flask
def test_unknown_paths_and_methods_are_json(board: int) -> None:
    assert_error(helpers.ask(board, "GET", "/nowhere"), 404, "Not Found")
    reply = helpers.ask(board, "GET", "/api/ai/build-board")
    assert_error(reply, 405, "Not Allowed")
    assert "POST" in reply.headers["allow"]


# --- upstreams that fail -------------------------------------------------------------------------


def upstreams(url: str, other: str = "") -> dict[str, str]:
    """An environment in which `url` is the model and `other`, or `url`, the database."""
    return {
        "DEEPSEEK_API_KEY": "secret-key",
        "DEEPSEEK_BASE_URL": url,
        "SUPABASE_URL": other or url,
        "SUPABASE_KEY": "secret-key",
        "BOARD_TIMEOUT": "0.5",
    }


def completion(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


PLAN = completion('{"title": "t", "columns": [{"name": "c", "queries": ["q"]}]}')


@needs_server
@needs_flask
@pytest.mark.parametrize(
    "status, body, words",
    [
        (401, b'{"error": {"message": "bad key"}}', ("model", "401")),
        (402, b"{}", ("model", "402")),
        (500, b"oops", ("model", "500")),
        (200, b"", ("model", "JSON")),
        (200, b"<html>", ("model", "JSON")),
        (200, b"\n\n" + completion("   "), ("model", "JSON")),
        (200, completion("[1, 2]"), ("model", "JSON")),
        (200, completion('{"columns": 7}'), ("model", "plan")),
        (200, completion('{"columns": [{"name": "c", "queries": []}]}'), ("model", "plan")),
        (200, b'{"error": {"message": "late failure"}}', ("model", "JSON")),
        (200, PLAN, ("database", "catalogue")),
    ],
)
def test_garbled_upstream_is_502(
    catalogue: Path, tmp_path: Path, status: int, body: bytes, words: tuple[str, ...]
) -> None:
    with helpers.fake_upstream(status, body) as url:
        with helpers.board(tmp_path, catalogue, **upstreams(url)) as process:
            reply = helpers.build(process.port, "x")
            assert_error(reply, 502, *words)
            assert b"secret-key" not in reply.body and "secret-key" not in process.output()
            assert helpers.ask(process.port, "GET", "/health").json()["rehearsal"] is False


@needs_server
@needs_flask
def test_upstream_that_is_down_is_502(catalogue: Path, tmp_path: Path) -> None:
    with helpers.refused_port() as dead:
        with helpers.board(tmp_path, catalogue, **upstreams(f"http://127.0.0.1:{dead}")) as process:
            assert_error(helpers.build(process.port, "x"), 502, "model", "down")


@needs_server
@needs_flask
def test_database_that_is_down_is_502(catalogue: Path, tmp_path: Path) -> None:
    with helpers.refused_port() as dead, helpers.fake_upstream(200, PLAN) as model:
        env = upstreams(model, f"http://127.0.0.1:{dead}")
        with helpers.board(tmp_path, catalogue, **env) as process:
            assert_error(helpers.build(process.port, "x"), 502, "database", "down")


@needs_server
@needs_flask
def test_silent_upstream_is_502(catalogue: Path, tmp_path: Path) -> None:
    with helpers.fake_upstream(silent=True) as url:
        with helpers.board(tmp_path, catalogue, **upstreams(url)) as process:
            assert_error(helpers.build(process.port, "x"), 502, "model", "silent for 0.5 s")


# --- who may ask ---------------------------------------------------------------------------------


@needs_server
@needs_flask
def test_with_tokens_only_they_are_users(catalogue: Path, tmp_path: Path) -> None:
    delays = " ".join(FAST)
    env = {"BOARD_TOKENS": "first:one-secret, second:zwei-ümlaut"}
    with helpers.board(tmp_path, catalogue, delays=delays, **env) as process:
        known = helpers.build(process.port, "cut a video", token="one-secret")
        assert known.status == 200 and known.json()["user"] == "first"
        headers = {"Authorization": "Bearer zwei-ümlaut".encode().decode("latin-1")}
        body = '{"prompt": "cut a video"}'
        second = helpers.ask(process.port, "POST", "/api/ai/build-board", body, headers)
        assert second.json()["user"] == "second"
        unknown = helpers.build(process.port, "x", token="first")
        assert_error(unknown, 401, "not known")
        assert "invalid_token" in unknown.headers["www-authenticate"]
        assert "one-secret" not in process.output()
        page = helpers.ask(process.port, "GET", "/").body.decode()
        assert "Any bearer token" not in page and 'type="password"' in page


@needs_server
@needs_flask
@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}, {"Host": "example.org"}],
    ids=["x-forwarded-for", "forwarded", "host"],
)
def test_without_tokens_strangers_are_refused(board: int, headers: dict[str, str]) -> None:
    assert_error(helpers.ask(board, "GET", "/health", headers=headers), 403, "BOARD_TOKENS")


@needs_flask
@pytest.mark.parametrize(
    "address, status",
    [
        ("127.0.0.1", 200),
        ("127.8.9.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
def test_without_tokens_only_loopback_is_answered(address: str, status: int) -> None:
    script = (
        "import json, sys; from api.index import app\n"
        "reply = app.test_client().get('/health', environ_overrides={'REMOTE_ADDR': sys.argv[1]})\n"
        "print(reply.status_code, reply.content_type, reply.get_data(as_text=True))"
    )
    done = subprocess.run(
        [helpers.PYTHON, "-c", script, address],
        cwd=helpers.BOARD,
        env=helpers.clean_env(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.startswith(f"{status} application/json")


# --- admission: weir.yaml ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def admitted(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a board as `run` starts it, whose upstreams do not wait. Users have their own limits."""
    folder = tmp_path_factory.mktemp("admitted")
    with helpers.board(folder, catalogue, delays=" ".join(FAST)) as process:
        yield process.port


def assert_refused(reply: helpers.Answer, status: int, reason: str) -> dict[str, Any]:
    """Weir answered in place of the application, and says why."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["reason"] == reason
    return reply.json()


@needs_server
@needs_flask
@pytest.mark.parametrize("token", [None, "Bearer ", "Basic dXNlcjpwYXNz", "Token abc"])
def test_the_server_refuses_who_is_nobody(admitted: int, token: str | None) -> None:
    reply = post(admitted, '{"prompt": "x"}', token)
    assert_refused(reply, 401, "no_credentials")
    assert reply.headers["www-authenticate"].startswith("Bearer")


@needs_server
@needs_flask
def test_a_burst_of_three_passes_and_a_flood_is_told_when_to_come_back(admitted: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(helpers.build, admitted, "cut a video", "flood") for _ in range(8)]
        answers = [call.result() for call in calls]
    passed = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    # One more for each 6 s that this takes on a busy machine.
    assert 3 <= len(passed) <= 5, [answer.status for answer in answers]
    for answer in refused:
        told = assert_refused(answer, 429, "rate_limited")
        assert told["limit"] == "user" and 1 <= told["retry_after"] <= 6
        assert int(answer.headers["retry-after"]) == told["retry_after"]
        assert answer.headers["ratelimit-policy"].startswith('"user";q=10;w=60')
    # Another user has three of his own.
    assert helpers.build(admitted, "cut a video", "calm").status == 200


@needs_server
@needs_flask
def test_a_page_of_this_machine_may_ask_and_read_refusals(admitted: int) -> None:
    for origin, may in (("http://localhost:3000", True), ("https://example.org", False)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        reply = helpers.ask(admitted, "OPTIONS", "/api/ai/build-board", headers=asked)
        assert (reply.status == 204) is may
        reply = helpers.ask(admitted, "POST", "/api/ai/build-board", "{}", {"Origin": origin})
        assert_refused(reply, 401, "no_credentials")
        assert reply.headers.get("access-control-allow-origin") == (origin if may else None)


@needs_server
@needs_flask
def test_boards_beyond_the_places_wait_in_the_queue_and_then_are_refused(
    catalogue: Path, tmp_path: Path
) -> None:
    policy = helpers.other_policy(
        tmp_path, ("concurrency: 32", "concurrency: 1"), ("size: 100", "size: 1")
    )
    with helpers.fake_upstream(silent=True) as stuck:
        env = {**upstreams(stuck), "BOARD_TIMEOUT": "3"}
        with helpers.board(tmp_path, catalogue, "--config", policy, **env) as process:
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                users = ("a", "b", "c")
                calls = [pool.submit(helpers.build, process.port, "x", user) for user in users]
                health = helpers.ask(process.port, "GET", "/health")
                answers = [call.result() for call in calls]
    assert health.status == 200
    # One was in the application until its upstream was given up, one waited for its place.
    assert sorted(answer.status for answer in answers) == [502, 502, 503]
    (refused,) = (answer for answer in answers if answer.status == 503)
    assert assert_refused(refused, 503, "queue_full")["position"] >= 1


@needs_server
@needs_flask
def test_health_answers_while_every_place_is_taken(catalogue: Path, tmp_path: Path) -> None:
    with helpers.fake_upstream(silent=True) as stuck:
        env = {**upstreams(stuck), "BOARD_TIMEOUT": "8"}
        with helpers.board(tmp_path, catalogue, "--threads", "2", **env) as process:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                calls = [pool.submit(helpers.build, process.port, "x", user) for user in "ab"]

                def all_are_taken() -> bool:
                    try:
                        helpers.ask(process.port, "GET", "/", timeout=0.3)
                    except TimeoutError:
                        return True
                    return False

                helpers.until("both places are taken", all_are_taken)
                assert helpers.ask(process.port, "GET", "/health", timeout=10).status == 200
                assert not any(call.done() for call in calls)
                assert [call.result().status for call in calls] == [502, 502]


@needs_server
@needs_flask
def test_a_board_beyond_its_deadline_is_given_up(catalogue: Path, tmp_path: Path) -> None:
    policy = helpers.other_policy(tmp_path, ("deadline: 90s", "deadline: 300ms"))
    with helpers.fake_upstream(silent=True) as stuck:
        env = {**upstreams(stuck), "BOARD_TIMEOUT": "2"}
        with helpers.board(tmp_path, catalogue, "--config", policy, **env) as process:
            assert_refused(helpers.build(process.port, "x"), 504, "deadline")
            log = helpers.until(
                "the stack", lambda: process.output() if "in ask_model" in process.output() else ""
            )
            assert "takes longer than its deadline" in log
            assert helpers.ask(process.port, "GET", "/health").status == 200


def token(secret: bytes, **claims: Any) -> str:
    """A JWT with HS256, made of the standard library alone."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(b'{"alg":"HS256","typ":"JWT"}') + "." + part(json.dumps(claims).encode())
    return head + "." + part(hmac.digest(secret, head.encode(), "sha256"))


@needs_server
@needs_flask
def test_with_a_secret_only_signed_tokens_are_users(catalogue: Path, tmp_path: Path) -> None:
    secret = b"a secret of more than 32 bytes, for tests"
    (tmp_path / "jwt.secret").write_bytes(secret + b"\n")
    env = {"BOARD_JWT_SECRET_FILE": str(tmp_path / "jwt.secret")}
    soon = int(time.time()) + 600
    with helpers.board(tmp_path, catalogue, delays=" ".join(FAST), **env) as process:
        known = helpers.build(process.port, "cut a video", token(secret, sub="ada", exp=soon))
        assert known.status == 200 and known.json()["user"] == "ada"
        for wrong in (token(b"x" * 40, sub="ada", exp=soon), token(secret, sub="ada", exp=1000), "me"):
            reply = helpers.build(process.port, "x", wrong)
            assert_refused(reply, 401, "bad_credentials")
            assert 'error="invalid_token"' in reply.headers["www-authenticate"]
        page = helpers.ask(process.port, "GET", "/").body.decode()
        assert "Any bearer token" not in page and 'type="password"' in page
        # Who comes through a proxy is no stranger any more.
        forwarded = {"X-Forwarded-For": "192.0.2.1"}
        assert helpers.ask(process.port, "GET", "/health", headers=forwarded).status == 200
    with helpers.board(tmp_path, catalogue, "--config", "", delays=" ".join(FAST), **env) as process:
        # Nobody verifies tokens here, so nobody is a user.
        good = token(secret, sub="ada", exp=soon)
        assert_error(helpers.build(process.port, "x", good), 401, "No token was verified")


@needs_server
@needs_flask
def test_a_secret_that_cannot_be_used_is_told(catalogue: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short\n")
    env = {"BOARD_CATALOGUE": str(catalogue), "BOARD_JWT_SECRET_FILE": str(tmp_path / "short")}
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "run")],
        env=helpers.clean_env(PORT="0", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "secret_file" in done.stdout and "base64 48" in done.stdout


# --- many at once --------------------------------------------------------------------------------


@needs_server
@needs_flask
def test_twenty_boards_take_the_time_of_one(catalogue: Path, tmp_path: Path) -> None:
    delays = "--delay-ai 1 --delay-db 0.1"
    prompt = "cut the video of our holiday"
    with helpers.board(tmp_path, catalogue, delays=delays) as process:
        begun = time.monotonic()
        assert helpers.build(process.port, prompt).status == 200
        one = time.monotonic() - begun
        assert one >= 2

        done = threading.Event()
        health: list[float] = []

        def watch() -> None:
            while not done.is_set():
                asked = time.monotonic()
                assert helpers.ask(process.port, "GET", "/health").status == 200
                health.append(time.monotonic() - asked)
                done.wait(0.02)

        with concurrent.futures.ThreadPoolExecutor(21) as pool:
            watcher = pool.submit(watch)
            begun = time.monotonic()
            users = [f"user-{i}" for i in range(20)]
            calls = [pool.submit(helpers.build, process.port, prompt, user) for user in users]
            answers = [call.result() for call in calls]
            twenty = time.monotonic() - begun
            done.set()
            watcher.result()
        assert [answer.status for answer in answers] == [200] * 20
        # Each got its own answer, whatever the order they came in.
        assert [answer.json()["user"] for answer in answers] == users
        assert twenty < 2 * one + 1
        assert statistics.median(health) < 0.1, health


@needs_server
@needs_flask
def test_one_thread_takes_the_time_of_three(catalogue: Path, tmp_path: Path) -> None:
    """What the demo shows: options reach the server, and a bound is a bound."""
    delays = "--delay-ai 0.4 --delay-db 0"
    with helpers.board(tmp_path, catalogue, "--threads", "1", delays=delays) as process:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            begun = time.monotonic()
            calls = [pool.submit(helpers.build, process.port, "cut a video") for _ in range(3)]
            assert [call.result().status for call in calls] == [200] * 3
        assert time.monotonic() - begun >= 3 * 0.8


# --- the scripts ---------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The process ids of a process's children, read from the kernel."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def runs(pid: int) -> bool:
    """Does this process still run? One that only waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@needs_server
@needs_flask
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_stopping_run_stops_everything(catalogue: Path, tmp_path: Path, how: int) -> None:
    with helpers.board(tmp_path, catalogue, delays=" ".join(FAST)) as process:
        family = children(process.child.pid)
        assert len(family) >= 2
        status = process.stop(how)
        assert status == (-how if how == signal.SIGKILL else 0)
        helpers.until("the end of all children", lambda: not any(map(runs, family)))
        with pytest.raises(ConnectionError):
            helpers.ask(process.port, "GET", "/health")


@needs_server
@needs_flask
def test_run_prints_urls_and_three_commands_that_work(catalogue: Path, tmp_path: Path) -> None:
    with helpers.board(tmp_path, catalogue, delays=" ".join(FAST)) as process:
        url = f"http://127.0.0.1:{process.port}"
        text = helpers.until(
            "the greeting", lambda: process.output() if "Ctrl-C" in process.output() else None
        )
        assert f"{url}/health" in text and f"{url}/api/ai/build-board" in text
        assert "rehearsal" in text
        found = re.search(r"shown here: (http://127\.0\.0\.1:[0-9]+/status)\n", text)
        assert found
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(found[1], timeout=10) as r:
            assert r.status == 200 and r.headers.get_content_type() == "text/html"
        commands = [line for line in text.splitlines() if line.strip().startswith("curl ")]
        assert len(commands) == 3
        for command in commands:
            done = subprocess.run(
                ["/bin/sh", "-c", command + " wait"], stdout=subprocess.PIPE, text=True, timeout=60
            )
            answer = json.loads(done.stdout.rpartition("\nboard ")[0])
            assert answer["rehearsal"] is True and answer["title"]
        (flood,) = (line for line in text.splitlines() if line.strip().startswith("for i in "))
        done = subprocess.run(["/bin/sh", "-c", flood], stdout=subprocess.PIPE, text=True, timeout=60)
        assert len(re.findall(r"^200 after ", done.stdout, re.MULTILINE)) == 3, done.stdout
        assert len(re.findall(r"^429 after .* s, Retry-After: [1-6]$", done.stdout, re.MULTILINE)) == 3


@needs_server
@needs_flask
def test_run_ends_when_the_server_does(catalogue: Path, tmp_path: Path) -> None:
    with helpers.board(tmp_path, catalogue, delays=" ".join(FAST)) as process:
        family = children(process.child.pid)
        server = family[-1]
        os.kill(server, signal.SIGTERM)
        assert process.child.wait(60) == 1
        assert "ended by itself" in process.output()
        helpers.until("the end of all children", lambda: not any(map(runs, family)))


def run_fails(*arguments: str, **env: str) -> str:
    """What `run` writes when it cannot start; it must be one line, soon, with exit 1."""
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "run"), *arguments],
        env=helpers.clean_env(**{"PORT": "0", **env}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1 and done.stdout.count("\n") == 1, done.stdout
    return done.stdout


def test_run_refuses_others_without_tokens() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        assert "BOARD_TOKENS" in run_fails(HOST=host, WEIR="/bin/true")


def test_run_refuses_two_ways_to_know_users() -> None:
    text = run_fails(WEIR="/bin/true", BOARD_TOKENS="a:b", BOARD_JWT_SECRET_FILE="/nowhere")
    assert "BOARD_JWT_SECRET_FILE exclude each other" in text


def test_run_names_the_port_that_is_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = run_fails(PORT=str(port), WEIR="/bin/true")
        assert f"127.0.0.1:{port} is in use" in text and "PORT=" in text
        if port > 1024:  # the status page's is the next one
            text = run_fails(PORT=str(port - 1), WEIR="/bin/true")
            assert f"127.0.0.1:{port} is in use" in text or f"127.0.0.1:{port - 1} is in use" in text


def test_run_names_what_is_wrong_with_its_settings() -> None:
    assert "PORT=many" in run_fails(PORT="many", WEIR="/bin/true")
    assert "PORT=70000" in run_fails(PORT="70000", WEIR="/bin/true")
    assert "HOST and PORT" in run_fails("--bind", "0.0.0.0:1", WEIR="/bin/true")
    assert "BOARD_TOKENS" in run_fails(BOARD_TOKENS="nameless", WEIR="/bin/true")


def test_run_tells_when_the_server_does_not_start(catalogue: Path) -> None:
    text = run_fails(WEIR="/bin/false", BOARD_CATALOGUE=str(catalogue))
    assert "ended before it answered" in text
    text = run_fails(WEIR="/nowhere/weir", BOARD_CATALOGUE=str(catalogue))
    assert "cannot start /nowhere/weir" in text


@needs_server
@needs_flask
def test_demo_shows_one_and_three(tmp_path: Path) -> None:
    import catalogue as maker

    path = tmp_path / "catalogue.db"
    try:
        maker.build(path, out=open(os.devnull, "w"))
    except maker.CatalogueError:
        pytest.skip("no package lists on this machine")
    delays = "--delay-ai 0.8:1.2 --delay-db 0.02:0.05 --seed 1"
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "demo")],
        env=helpers.clean_env(BOARD_CATALOGUE=str(path), REHEARSAL_ARGS=delays),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"three at once: [0-9.]+ s", done.stdout)
    assert re.search(r"--threads 1: +[0-9.]+ s – the time of three", done.stdout), done.stdout


@needs_server
def test_demo_fails_when_the_example_does_not_start(catalogue: Path) -> None:
    done = subprocess.run(
        [helpers.PYTHON, str(helpers.BOARD / "demo")],
        env=helpers.clean_env(BOARD_CATALOGUE=str(catalogue), WEIR="/bin/false"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "did not start" in done.stdout
