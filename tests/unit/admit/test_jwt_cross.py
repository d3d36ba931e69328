"""Weir and others agree about tokens: PyJWT and the openssl command make them and look at them, tests/tools/jwt_tool.c too."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

jwt = pytest.importorskip("jwt")
pytest.importorskip("cryptography")
from jwt.algorithms import ECAlgorithm, RSAAlgorithm  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / os.environ.get("WEIR_BUILD", "build")
SECRET = b"0123456789 0123456789 0123456789 0123456789"
NOW = 1_700_000_000
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="session", autouse=True)
def tool() -> Path:
    subprocess.run(["ninja", "-C", str(BUILD), "--quiet", "tests/unit/jwt_tool"], check=True)
    return BUILD / "tests" / "unit" / "jwt_tool"


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=given, capture_output=True, check=True).stdout


class Issuer:
    """An RSA key, an EC key and a secret, as files and as a JWK set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rsa, self.ec = folder / "rsa.pem", folder / "ec.pem"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.rsa)
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.ec)
        keys = []
        self.public: dict[str, Any] = {"HS256": SECRET}
        for name, algorithm, path in (("RS256", RSAAlgorithm, self.rsa), ("ES256", ECAlgorithm, self.ec)):
            public = openssl("pkey", "-in", path, "-pubout")
            self.public[name] = public
            algorithm = algorithm(algorithm.SHA256)
            key = algorithm.prepare_key(public)
            # to_jwk of EC keys came with later versions of PyJWT.
            keys.append({**(json.loads(algorithm.to_jwk(key)) if name == "RS256" else ec_jwk(key)), "kid": name})
            keys[-1].pop("key_ops", None)
        keys.append({"kty": "oct", "k": b64(SECRET), "kid": "HS256"})
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": keys}))
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET)

    def private(self, algorithm: str) -> bytes:
        return {"HS256": SECRET, "RS256": self.rsa.read_bytes(), "ES256": self.ec.read_bytes()}[algorithm]


def ec_jwk(key: Any) -> dict[str, str]:
    numbers = key.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys"))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def verdicts(tool: Path, issuer: Issuer, tokens: list[str], *more: str) -> list[tuple[str, str]]:
    """What Weir says: (word, user) of each."""
    assert not any("\n" in t for t in tokens)
    out = subprocess.run([str(tool), "jwks", str(issuer.jwks), str(NOW), *more], text=True, capture_output=True,
                         check=True, input="".join(f"{t}\n" for t in tokens), encoding="utf-8", errors="surrogateescape")
    lines = out.stdout.splitlines()
    assert len(lines) == len(tokens) and not out.stderr
    return [tuple(line.split("\t", 1)) for line in lines]  # type: ignore[misc]


def theirs(issuer: Issuer, token: str) -> bool:
    """What PyJWT says, of the same algorithms by the same kids; times are looked at elsewhere."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        if kid not in issuer.public:
            return False
        jwt.decode(token, issuer.public[kid], algorithms=[kid], options={"verify_exp": False, "verify_aud": False,
                                                                         "verify_nbf": False, "verify_iat": False})
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_tokens_of_pyjwt_are_good(tool: Path, issuer: Issuer, algorithm: str) -> None:
    rng = random.Random(7)
    tokens, users = [], []
    for i in range(50):
        user = "".join(rng.choice("abcäöü漢 \"\\/<>") for _ in range(rng.randint(0, 40))) + str(i)
        claims = {"sub": user, "exp": NOW + rng.randint(1, 1000), "iat": NOW, "x": [1.5, None, {"y": "z" * rng.randint(0, 900)}]}
        tokens.append(jwt.encode(claims, issuer.private(algorithm), algorithm=algorithm, headers={"kid": algorithm}))
        users.append(user)
    assert verdicts(tool, issuer, tokens) == [("ok", user) for user in users]


@pytest.mark.parametrize(("claims", "word"), [
    ({"exp": NOW}, "expired"), ({"exp": NOW + 1}, "ok"), ({"nbf": NOW + 1}, "not_yet"), ({"nbf": NOW}, "ok"),
    ({"iss": "other"}, "issuer"), ({"aud": "other"}, "audience"), ({"aud": ["other", "us"]}, "ok"),
])
def test_claims_are_judged_as_pyjwt_writes_them(tool: Path, issuer: Issuer, claims: dict[str, Any], word: str) -> None:
    token = jwt.encode({"sub": "ada", "iss": "me", "aud": "us", **claims}, issuer.private("ES256"), algorithm="ES256")
    assert verdicts(tool, issuer, [token], "me", "us")[0][0] == word


def test_tokens_that_openssl_signs_are_good(tool: Path, issuer: Issuer) -> None:
    tokens = []
    for i in range(10):
        for algorithm in ("RS256", "ES256", "HS256"):
            signed = f'{b64(json.dumps({"alg": algorithm, "kid": algorithm}).encode())}.{b64(json.dumps({"sub": f"{i}"}).encode())}'
            if algorithm == "HS256":
                mac = openssl("dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{SECRET.hex()}", "-binary", given=signed.encode())
                assert mac == hmac.digest(SECRET, signed.encode(), hashlib.sha256)
                signature = mac
            else:
                signature = openssl("dgst", "-sha256", "-sign", issuer.rsa if algorithm == "RS256" else issuer.ec, given=signed.encode())
            if algorithm == "ES256":
                signature = raw_of_der(signature)
            tokens.append(f"{signed}.{b64(signature)}")
            assert theirs(issuer, tokens[-1])
    assert verdicts(tool, issuer, tokens) == [("ok", str(i)) for i in range(10) for _ in range(3)]


def raw_of_der(der: bytes) -> bytes:
    r = int.from_bytes(der[4:4 + der[3]], "big")
    s = int.from_bytes(der[6 + der[3]:], "big")
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def mutated(rng: random.Random, token: str) -> str:
    """One change that may be small."""
    at = rng.randrange(len(token))
    kind = rng.randrange(7)
    if kind == 0:
        return token[:at] + rng.choice(ALPHABET) + token[at + 1:]
    if kind == 1:
        return token[:at] + token[at + 1:]
    if kind == 2:
        return token[:at] + rng.choice(ALPHABET + ".=+/ ") + token[at:]
    if kind == 3:
        return token[:at]
    if kind == 4:
        return token + rng.choice(["=", ".", "A", "AA", "AAAA", " "])
    if kind == 5:
        other = rng.randrange(len(token))
        low, high = sorted((at, other))
        return token[:low] + token[high:] if low != high else token
    parts = token.split(".")
    which = rng.randrange(3)
    data = bytearray(base64.urlsafe_b64decode(parts[which] + "=="))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return ".".join([*parts[:which], b64(bytes(data)), *parts[which + 1:]])


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_changed_tokens_are_refused_by_both(tool: Path, issuer: Issuer, algorithm: str) -> None:
    rng = random.Random(int(os.environ.get("SEED", "1")))
    token = jwt.encode({"sub": "ada", "exp": NOW + 100, "role": "user"}, issuer.private(algorithm), algorithm=algorithm,
                       headers={"kid": algorithm})
    assert verdicts(tool, issuer, [token]) == [("ok", "ada")] and theirs(issuer, token)
    lies = [lie for lie in (mutated(rng, token) for _ in range(2000)) if lie != token]
    ours = verdicts(tool, issuer, lies)
    assert [lie for lie, (word, _) in zip(lies, ours) if word == "ok"] == []
    # PyJWT takes padding and bits left over, which we refuse; beyond that it finds the same.
    def canonical(t: str) -> bool:
        return all(p and not set(p) - set(ALPHABET) and len(p) % 4 != 1 and b64(base64.urlsafe_b64decode(p + "==")) == p
                   for p in t.split("."))
    assert [lie for lie in lies if canonical(lie) and theirs(issuer, lie)] == []


def test_other_algorithms_of_pyjwt_are_refused(tool: Path, issuer: Issuer) -> None:
    claims = {"sub": "ada"}
    tokens = [jwt.encode(claims, SECRET, algorithm=a) for a in ("HS384", "HS512")]
    tokens += [jwt.encode(claims, issuer.private("RS256"), algorithm=a) for a in ("RS384", "RS512", "PS256")]
    tokens += [jwt.encode(claims, None, algorithm="none")]
    assert verdicts(tool, issuer, tokens) == [("alg_refused", "")] * len(tokens)
    # RS256's public key as a secret, which PyJWT does not sign with.
    public = issuer.public["RS256"]
    for kid in ({}, {"kid": "RS256"}, {"kid": "HS256"}):
        signed = f'{b64(json.dumps({"alg": "HS256", **kid}).encode())}.{b64(json.dumps(claims).encode())}'
        token = f"{signed}.{b64(hmac.digest(public, signed.encode(), hashlib.sha256))}"
        assert verdicts(tool, issuer, [token])[0][0] in ("alg_refused", "bad_signature")


def test_a_public_key_as_the_secret_file_is_refused(tool: Path, issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(issuer.public["RS256"])
    out = subprocess.run([str(tool), "secret", str(path), str(NOW)], text=True, capture_output=True, input="", check=False)
    assert out.returncode == 1 and "give public keys as `jwks` instead" in out.stderr
