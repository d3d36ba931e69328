"""Who asks the admin listener: its address, the token, and what may go wrong.

    admin = Admin(Address.parse("127.0.0.1:5001"), token)
    admin.json("/status.json?brief=yes")
    for name, value in admin.events("/events"):   server-sent events

AskError is one sentence with cause and cure.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# The listener waits a second for workers that do not answer.
ANSWER_SECONDS = 10.0
# Events come each second.
EVENT_SECONDS = 5.0
# 200 threads of 100 workers are some 20 MB.
ANSWER_BYTES_MAX = 256 * 1024 * 1024
EVENT_BYTES_MAX = 16 * 1024 * 1024
EXAMPLE = "give HOST:PORT, as 127.0.0.1:5001, unix:PATH or a URL"


class AskError(Exception):
    pass


@dataclass(frozen=True)
class Address:
    """HOST:PORT or a Unix socket; `text` as it is shown."""

    text: str
    host: str = ""
    port: int = 0
    path: str = ""  # Unix; a leading @ is an abstract name
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        rest, tls = text.strip(), False
        if rest.startswith(("http://", "https://")):
            tls = rest.startswith("https")
            rest = rest.split("//", 1)[1].split("/", 1)[0]
            if rest and not re.search(r":\d+$", rest):
                rest += ":443" if tls else ":80"
        if rest.startswith("unix:"):
            path = rest[5:]
            if not path:
                raise AskError("admin: '%s' names no path; %s" % (plain(text), EXAMPLE))
            return cls("unix:" + path, path=path)
        if not rest:
            raise AskError("admin: '%s' is not an address; %s" % (plain(text), EXAMPLE))
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]*)):(\d{1,5})", rest if ":" in rest else ":" + rest)
        if not match or int(match[3]) > 65535:
            raise AskError("admin: '%s' is not an address; %s" % (plain(text), EXAMPLE))
        host, port = match[1] or match[2], int(match[3])
        if not port:
            raise AskError("admin: port 0 is chosen anew at each start; name the port that the server said")
        # All addresses of this machine are asked on its own.
        host = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return cls("%s:%d" % ("[%s]" % host if ":" in host else host, port), host, port, tls=tls)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect("\0" + self.path[1:] if self.path.startswith("@") else self.path)


class Admin:
    """One listener. Each question has a connection of its own."""

    def __init__(self, address: Address, token: str = "", token_from: str = "") -> None:
        self.address = address
        self.token = token
        self.token_from = token_from  # for messages

    def get(self, target: str) -> bytes:
        """The body of a 200."""
        with self._asked(target, ANSWER_SECONDS) as response:
            body = response.read(ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise AskError("%s: the answer is longer than %d MiB" % (self.address.text, ANSWER_BYTES_MAX >> 20))
        return body

    def json(self, target: str) -> dict[str, Any]:
        return self._object(self.get(target))

    def events(self, target: str, opened: Any = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and object of each event, until the other side ends. `opened` is called with the socket."""
        with self._asked(target, EVENT_SECONDS, opened) as response:
            name, data, size = "", [], 0
            while True:
                line = response.readline(EVENT_BYTES_MAX)
                size += len(line)
                if not line or size >= EVENT_BYTES_MAX:
                    return
                text = line.rstrip(b"\r\n")
                field, _, value = text.partition(b":")
                value = value[1:] if value.startswith(b" ") else value
                if field == b"event":
                    name = value.decode("utf-8", "replace")
                elif field == b"data":
                    data.append(value)
                elif not text:
                    if data:
                        yield name, self._object(b"\n".join(data))
                    name, data, size = "", [], 0

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.address.path:
            return _UnixConnection(self.address.path, timeout)
        if self.address.tls:
            return http.client.HTTPSConnection(self.address.host, self.address.port, timeout=timeout,
                                               context=ssl.create_default_context())
        return http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)

    @contextlib.contextmanager
    def _asked(self, target: str, timeout: float, opened: Any = None) -> Iterator[http.client.HTTPResponse]:
        headers = {"User-Agent": "weir", "Accept": "*/*"}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        connection = self._connection(timeout)
        try:
            connection.request("GET", target, headers=headers)
            if opened:
                opened(connection.sock)
            with connection.getresponse() as response:
                if response.status != 200:
                    raise AskError(self._refused(response.status, response.read(65536)))
                yield response
        except TimeoutError:
            raise AskError("%s: no answer within %g s" % (self.address.text, timeout)) from None
        except ConnectionRefusedError:
            raise AskError("%s: connection refused; is the server running, and started with --admin %s?"
                           % (self.address.text, self.address.text)) from None
        except FileNotFoundError:
            raise AskError("%s: there is no such socket; is the server running, and started with --admin %s?"
                           % (self.address.text, self.address.text)) from None
        except PermissionError:
            raise AskError("%s: permission denied; ask as the user that the server was started by"
                           % self.address.text) from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
                why = "what answers there is no HTTP server"
            raise AskError("%s: %s" % (self.address.text, plain(why))) from None
        except UnicodeError:
            raise AskError("the admin token has characters that no field can carry") from None
        except ValueError as error:  # of http.client: a line end in the token
            raise AskError("%s: %s" % (self.address.text, plain(str(error)))) from None
        finally:
            connection.close()

    def _refused(self, status: int, body: bytes) -> str:
        where = self.address.text
        if status == 401 and not self.token:
            return ("%s asks for a token: give --admin-token-file FILE, or WEIR_ADMIN_TOKEN in the environment"
                    % where)
        if status == 401:
            return "%s refuses the token of %s: it is another one than the server's" % (where, self.token_from)
        if status == 421:
            return ("%s does not answer to the name '%s': ask by an IP address, or start the server with "
                    "--admin-host %s" % (where, self.address.host, self.address.host))
        if status == 404:
            return "%s: what answers there is no admin listener of this version of weir" % where
        said = first_line(body)
        return "%s: answered with %d%s" % (where, status, ": " + said if said else "")

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise AskError("%s: what answers there is no admin listener of weir" % self.address.text)
        return value


def first_line(body: bytes) -> str:
    """What an error's body says, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
        text = value.get("error") or value.get("detail") or text
    except (ValueError, AttributeError, RecursionError):
        pass
    return plain(str(text).strip().split("\n")[0])[:200]


def plain(text: str) -> str:
    """Text from elsewhere that cannot steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def read_token(path: str) -> str:
    """The first line of a file."""
    try:
        with open(path, encoding="utf-8") as file:
            token = file.readline(8192).strip()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "no text"
        raise AskError("cannot read the admin token from '%s': %s" % (plain(path), why)) from None
    if not token:
        raise AskError("the file of the admin token '%s' is empty" % plain(path))
    return token


def find(core: Any, options: Any, settings: list[str], environ: dict[str, str]) -> Admin:
    """The listener of the options, else that of the settings that a server would be started with."""
    mine = dict(environ)
    if options.admin:
        mine.pop("WEIR_ADMIN", None)
    argv = ["weir", *settings, *(["--config", options.config] if options.config else []), "--print-config"]
    parsed = core.parse(argv, "weir", mine)
    config = parsed["config"]
    if parsed["status"] and not options.admin:
        raise AskError(parsed["message"].strip().removeprefix("weir: "))
    address = options.admin or (config.admin if config else "")
    if not address:
        raise AskError("no admin listener is configured: start the server with --admin 127.0.0.1:5001, and name "
                       "it here by --admin, WEIR_ADMIN or weir.yaml")
    token, token_from = "", ""
    if options.admin_token_file:
        token, token_from = read_token(options.admin_token_file), options.admin_token_file
    elif config and config.admin_token:
        token, token_from = config.admin_token, "the settings (WEIR_ADMIN_TOKEN, admin-token)"
    elif config and config.admin_token_file:
        token, token_from = read_token(config.admin_token_file), config.admin_token_file
    elif environ.get("WEIR_ADMIN_TOKEN"):
        token, token_from = environ["WEIR_ADMIN_TOKEN"], "WEIR_ADMIN_TOKEN"
    elif environ.get("WEIR_ADMIN_TOKEN_FILE"):
        token, token_from = read_token(environ["WEIR_ADMIN_TOKEN_FILE"]), environ["WEIR_ADMIN_TOKEN_FILE"]
    return Admin(Address.parse(address), os.fsencode(token).decode("latin-1"), token_from)
