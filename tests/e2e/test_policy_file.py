"""identify, tiers, cors and routes of weir.yaml, as a start meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness import ROOT, weir_command
from test_command_line import as_module, run

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"
PAGE = ROOT / "docs" / "reference" / "policy.md"
# Of RFC 7515, A.3.
EC_KEY = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
          "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
POLICY = """\
identify:
  - jwt: {secret_file: jwt.secret, issuer: https://id.example.org}
  - api-key: {file: keys.txt}
  - address
tiers: {from: jwt.app_metadata.tier, default: free}
cors: {origins: ["https://*.example.org", "http://localhost:*"]}
routes:
  - match: [POST /api/ai/*, GET|POST /v1/m%20n]
    concurrency: 8
    queue: 100
    rate: {user: {free: 5/min, pro: 60/min burst 10}, address: 30/min}
    quota: {free: 20/day, pro: 200/day and 2000/month, default: 0}
  - {match: GET /health, lane: reserved}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "where.py").write_text(APP)
    (tmp_path / "jwt.secret").write_text("a secret of the tests, long enough for HS256")
    (tmp_path / "keys.txt").write_text("shop a-key-of-the-tests\n")
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [EC_KEY]}))
    return tmp_path


def policy_of(text: str) -> str:
    """What --print-config shows below the settings."""
    return text.partition("\n\n# ")[2].partition("\n")[2]


def test_policy_is_checked_and_the_server_starts_with_it(weir, folder):
    (folder / "weir.yaml").write_text(POLICY)
    r = run("--check-config", "where:app", cwd=folder)
    assert (r.returncode, r.stderr) == (0, "")
    server = weir("where:app", cwd=folder)
    assert server.get("/").text == "hello"


def test_printed_policy_can_be_used_again(folder):
    (folder / "weir.yaml").write_text(POLICY)
    first = run("--print-config", cwd=folder)
    assert (first.returncode, first.stderr) == (0, "")
    policy = policy_of(first.stdout)
    assert "user: {free: 5/min burst 5, pro: 60/min burst 10}" in policy
    assert '- match: ["POST /api/ai/*", "GET /v1/m%20n", "POST /v1/m%20n"]' in policy
    (folder / "weir.yaml").write_text(policy)
    second = run("--print-config", cwd=folder)
    assert policy_of(second.stdout) == policy


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("word", ["", "waitress-serve", "gunicorn"])
def test_wrong_policy_is_one_line_with_its_place_under_every_name(folder, word, native):
    command, env = (weir_command(), {}) if native else as_module()
    (folder / "weir.yaml").write_text("threads: 4\nroutes:\n- match: /x\n  rates: {user: 5/min}\n")
    r = run("where:app", cwd=folder, command=[*command, *([word] if word else [])], env=env)
    assert r.returncode != 0 and r.stdout == ""
    assert "weir.yaml:4: routes: 'rates' is unknown; did you mean rate?" in r.stderr
    assert "Traceback" not in r.stderr


@pytest.mark.parametrize("word", ["", "waitress-serve", "gunicorn"])
def test_file_that_is_not_there_is_told_under_every_name(folder, word):
    (folder / "weir.yaml").write_text("identify:\n- jwt: {secret_file: none.secret}\n")
    r = run("where:app", cwd=folder, command=[*weir_command(), *([word] if word else [])])
    assert r.returncode != 0
    assert "weir.yaml:2: secret_file: cannot read 'none.secret': No such file or directory" in r.stderr
    assert "Traceback" not in r.stderr


def test_health_check_needs_none_of_the_files(weir, folder):
    """It may run as a user from whom the secret is kept."""
    (folder / "weir.yaml").write_text(POLICY)
    server = weir("where:app", cwd=folder)
    (folder / "jwt.secret").unlink()
    r = run("healthcheck", f"127.0.0.1:{server.port}", cwd=folder)
    assert (r.returncode, r.stderr) == (0, "")


def test_gunicorn_prints_the_policy_too(folder):
    (folder / "weir.yaml").write_text(POLICY)
    r = run("gunicorn", "--print-config", "where:app", cwd=folder)
    assert r.returncode == 0
    assert "queue: {size: 100, wait: 30s, fair_by: user}" in r.stdout


def test_serve_refuses_a_wrong_policy(folder):
    command, env = as_module()
    (folder / "weir.yaml").write_text("routes: [{match: x}]\n")
    program = "import weir, where; weir.serve(where.app, port=0, config='weir.yaml')"
    r = run("-c", program, cwd=folder, command=[command[0]], env=env)
    assert r.returncode == 1
    assert "weir.yaml:1: match: 'x' has no path; write PATH or METHOD PATH, as POST /api/ai/*" in r.stderr


def test_route_that_never_matches_is_said_at_the_check(folder):
    (folder / "weir.yaml").write_text("routes:\n- match: /api/*\n- match: POST /api/x\n")
    r = run("--check-config", "where:app", cwd=folder)
    assert r.returncode == 0
    assert "weir.yaml:3: the route 'POST /api/x' never matches: '/api/*' in line 2" in r.stderr


def test_every_example_of_the_reference_is_accepted(folder):
    examples = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(examples) > 30
    for example in examples:
        (folder / "weir.yaml").write_text(example)
        r = run("--check-config", "where:app", cwd=folder)
        assert (r.returncode, r.stderr) == (0, ""), example


@pytest.mark.parametrize("word", ["", "waitress-serve", "gunicorn"])
@pytest.mark.parametrize("name, text, says", [
    ("jwt.secret", "short", "jwt.secret: the secret has 5 bytes and HS256 needs 32 at least"),
    ("jwks.json", "{", "jwks.json: "),
    ("keys.txt", "shop short", "keys.txt:1: "),
])
def test_check_config_finds_what_would_end_the_start(folder, word, name, text, says):
    """The server does not start with such a file, so the check must not call it fine."""
    (folder / name).write_text(text)
    (folder / "weir.yaml").write_text(
        "identify:\n- jwt: {secret_file: jwt.secret}\n- jwt: {jwks: jwks.json}\n- api_key: {file: keys.txt}\n")
    r = run("--check-config", "where:app", cwd=folder, command=[*weir_command(), *([word] if word else [])])
    assert r.returncode != 0 and "fine" not in r.stdout
    assert says in r.stderr and "Traceback" not in r.stderr
