"""Mails, and the run that sends one to a peer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, cast
from uuid import UUID, uuid4

import structlog

from jobd.handlers.email import Email, SmtpServer, send_email
from tests.edges.smtp_peer import Postbox, serving


@dataclass(frozen=True)
class Run:
    """What the handler reads of a JobContext."""

    id: UUID = field(default_factory=uuid4)
    generation: int = 1
    attempt: int = 1
    max_attempts: int = 10
    log: Any = field(default_factory=structlog.get_logger)


@asynccontextmanager
async def plain(postbox: Postbox, **settings: Any) -> AsyncIterator[SmtpServer]:
    async with serving(postbox) as port:
        yield SmtpServer(
            host="127.0.0.1", port=port, tls="none", sender="Shop <no-reply@shop.example>", **settings
        )


async def send(server: SmtpServer, mail: Email | None = None, run: Run | None = None) -> dict[str, Any]:
    return await send_email(cast("Any", run or Run()), mail or letter(), server)


def letter(**fields: Any) -> Email:
    return Email(**{"to": "ann@a.example", "subject": "Hello", "text": "Hi there\n", **fields})


async def delivered(mail: Email, *, run: Run | None = None, **postbox: Any) -> EmailMessage:
    """The one message that a willing server gets for this mail."""
    box = Postbox(**postbox)
    async with plain(box) as server:
        await send(server, mail, run)
    [message] = box.messages
    return message


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def mailboxes(message: EmailMessage, header: str) -> list[tuple[str, str]]:
    return [(one.display_name, one.addr_spec) for one in message[header].addresses]
