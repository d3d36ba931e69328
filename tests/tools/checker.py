#!/usr/bin/python3
"""Compare every answer with its request, under random pipelining, splits, aborts and slow calls.

Speaks to an application with /hello, /echo, /sleep/MS, /burn/MS, /stream/N that answers the query
string (or the body), as tests/tools/fake_server.c and tests/apps/checked.py do. Every request
carries a token of its own, so an answer that is lost, swapped, cut or given twice is seen. With
`/seen` (tests/apps/checked.py) it also asks which tokens the application ran more than once.

usage: checker.py HOST PORT [--connections 60] [--seconds 5] [--seed 1]

Prints one line of counts and exits 0 when nothing was lost, wrong or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time


class Wrong(Exception):
    """An answer that does not belong to its request."""


class Checker:
    """Counts of one run; `connections` clients share it."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self.host, self.port, self.seed = host, port, seed
        self.answers = 0
        self.aborted = 0
        self.errors: list[str] = []
        self.serial = 0

    def request(self, rnd: random.Random) -> tuple[bytes, bytes, str]:
        """One request's bytes, the body expected, and its token."""
        self.serial += 1
        token = f"t{self.seed}x{self.serial}"
        kind = rnd.random()
        if kind < 0.10:
            path = f"/sleep/{rnd.randint(1, 20)}?{token}"
        elif kind < 0.12:
            path = f"/burn/{rnd.randint(1, 5)}?{token}"
        elif kind < 0.15:
            n = rnd.randint(1, 12)
            body = "".join(f"event {i}\n" for i in range(n)).encode()
            return f"GET /stream/{n}?{token} HTTP/1.1\r\nHost: t\r\n\r\n".encode(), body, token
        elif kind < 0.45:
            size = rnd.choice((1, 100, 3000, 20000, 70000 if rnd.random() < 0.1 else 500))
            body = (token + ":").encode() + rnd.randbytes(size)
            if rnd.random() < 0.5:
                head = f"POST /echo?{token} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
                return head.encode() + body, body, token
            parts, at = [], 0
            while at < len(body):
                n = rnd.randint(1, max(1, len(body) // 3))
                parts.append(f"{len(body[at:at + n]):x}\r\n".encode() + body[at : at + n] + b"\r\n")
                at += n
            head = f"POST /echo?{token} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
            return head.encode() + b"".join(parts) + b"0\r\n\r\n", body, token
        else:
            path = f"/hello?{token}"
        return f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode(), token.encode(), token

    async def read_answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        if not status.startswith("HTTP/1.1 200"):
            raise Wrong(f"status {status!r}")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        if "content-length" in fields:
            return await reader.readexactly(int(fields["content-length"]))
        if fields.get("transfer-encoding") != "chunked":
            raise Wrong(f"no framing in {head!r}")
        body = b""
        while True:
            size = int(await reader.readuntil(b"\r\n"), 16)
            piece = await reader.readexactly(size + 2)
            if size == 0:
                return body
            body += piece[:-2]

    async def client(self, number: int, until: float) -> None:
        rnd = random.Random(f"{self.seed}/{number}")
        while time.monotonic() < until:
            reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
            try:
                for _ in range(rnd.randint(1, 40)):
                    batch = [self.request(rnd) for _ in range(rnd.randint(1, 8))]
                    data = b"".join(raw for raw, _, _ in batch)
                    abort = rnd.random() < 0.02
                    if abort:
                        data = data[: rnd.randint(1, len(data))]
                    at = 0
                    while at < len(data):
                        n = len(data) if rnd.random() < 0.5 else rnd.randint(1, 3000)
                        writer.write(data[at : at + n])
                        at += n
                        await writer.drain()
                        if rnd.random() < 0.3:
                            await asyncio.sleep(0)
                    if abort:
                        self.aborted += 1
                        if rnd.random() < 0.5:
                            writer.transport.abort()
                        break
                    for _, expected, token in batch:
                        got = await asyncio.wait_for(self.read_answer(reader), 30)
                        if got != expected:
                            raise Wrong(f"{token}: expected {expected[:40]!r}, got {got[:40]!r}")
                        self.answers += 1
                    if time.monotonic() > until:
                        break
            except (Wrong, asyncio.IncompleteReadError, asyncio.TimeoutError, OSError, ValueError) as e:
                self.errors.append(f"client {number}: {type(e).__name__}: {e}")
            finally:
                writer.close()

    async def seen(self) -> list[str]:
        """Tokens the application ran more than once; [] where it does not count."""
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 26)
        writer.write(b"GET /seen HTTP/1.1\r\nHost: t\r\n\r\n")
        try:
            answer = json.loads(await self.read_answer(reader))
            return answer["doubled"]
        except (Wrong, ValueError, KeyError, TypeError):
            return []
        finally:
            writer.close()

    async def run(self, connections: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.client(i, until) for i in range(connections)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    checker = Checker(args.host, args.port, args.seed)
    asyncio.run(checker.run(args.connections, args.seconds))
    doubled = asyncio.run(checker.seen())
    print(f"answers {checker.answers} aborted {checker.aborted} wrong {len(checker.errors)} doubled {len(doubled)}")
    for line in checker.errors[:10]:
        print(" ", line)
    return 0 if checker.answers and not checker.errors and not doubled else 1


if __name__ == "__main__":
    sys.exit(main())
