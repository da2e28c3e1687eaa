"""An SMTP server on this machine that takes every mail and tells who is listening. For the demo only.

Mailboxes at `busy.example` are greylisted, as many real ones are: the first try is put off, so that one
sees a job being retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.smtp import SMTP, Envelope, Session

GREYLISTED = "@busy.example"
NOT_NOW = "451 4.7.1 Greylisted, please try again later"


class Mailbox:
    """What aiosmtpd calls for each step of a conversation."""

    def __init__(
        self, *, arrived: Callable[[EmailMessage], None], put_off: Callable[[str, str], None]
    ) -> None:
        self._arrived = arrived
        self._put_off = put_off
        self._seen: set[str] = set()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.endswith(GREYLISTED) and address not in self._seen:
            self._seen.add(address)
            self._put_off(address, NOT_NOW)
            return NOT_NOW
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.original_content, bytes)
        message = message_from_bytes(envelope.original_content, policy=default)
        assert isinstance(message, EmailMessage)
        self._arrived(message)
        return "250 OK"


@asynccontextmanager
async def serving(mailbox: Mailbox) -> AsyncIterator[int]:
    """Answer on a free port of this machine, which is yielded, for as long as the block lasts."""
    loop = asyncio.get_running_loop()

    def conversation() -> SMTP:
        return SMTP(mailbox, hostname="klaus.example", loop=loop)

    server = await loop.create_server(conversation, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
