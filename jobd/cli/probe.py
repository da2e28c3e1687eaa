"""Ask a daemon's /readyz, with nothing but sockets: the container's HEALTHCHECK runs this for ever.

Host and port come from the environment or jobd.toml, read here without pydantic: what is wrong with
other settings is none of a health check's business.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8642
TIMEOUT_SECONDS = 5.0
LONGEST_ANSWER = 1_048_576

# A daemon that listens everywhere is asked on this machine.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    """`jobd health` without options: print the answer, return the exit code."""
    healthy, answer = ask(*address(None, None), timeout=TIMEOUT_SECONDS)
    print(as_text(answer))
    return 0 if healthy else 1


def address(host: str | None, port: str | None) -> tuple[str, str]:
    """Where to ask: as given, else as the environment says, else jobd.toml, else the default."""
    host = host or os.environ.get("JOBD_HTTP_HOST")
    port = port or os.environ.get("JOBD_HTTP_PORT")
    if not host or not port:
        told = _from_file()
        host = host or str(told.get("http_host") or DEFAULT_HOST)
        port = port or str(told.get("http_port") or DEFAULT_PORT)
    host = host.strip().strip("[]")
    return EVERYWHERE.get(host, host), port.strip()


def ask(host: str, port: str, *, timeout: float) -> tuple[bool, dict[str, Any]]:
    """Whether /readyz answers 200, and its JSON. Nobody there is an answer, too."""
    import json

    # HTTP/1.0: the answer comes in one piece and ends with the connection. No proxies, no redirects.
    request = f"GET /readyz HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    received = b""
    try:
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise OSError("that is not a port")
        with socket.create_connection((host, int(port)), timeout) as connection:
            connection.sendall(request.encode("ascii", "replace"))
            while len(received) < LONGEST_ANSWER and (piece := connection.recv(65_536)):
                received += piece
    except (OSError, UnicodeError) as error:
        return False, _unhealthy(f"no answer from {host} port {port}: {error or type(error).__name__}")
    head, _, body = received.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].split(b" ")
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "status" not in answer:
        return False, _unhealthy(f"{host} port {port} does not answer as a jobd daemon does")
    return status[1:2] == [b"200"], answer


def as_text(answer: dict[str, Any]) -> str:
    """The answer for people: one word, and a reason a line. No byte of it acts on a terminal."""
    reasons = answer.get("reasons")
    lines = [str(answer["status"])]
    lines += [f"  {reason}" for reason in reasons] if isinstance(reasons, list) else []
    encoding = sys.stdout.encoding or "ascii"
    printable = ("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    return "\n".join(printable).encode(encoding, "backslashreplace").decode(encoding)


def _unhealthy(why: str) -> dict[str, Any]:
    return {"status": "unhealthy", "reasons": [why]}


def _from_file() -> dict[str, Any]:
    path = os.environ.get("JOBD_CONFIG") or "jobd.toml"
    if not os.path.exists(path):
        return {}
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return {}
