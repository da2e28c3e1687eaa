"""A real SMTP server (aiosmtpd) on the test's own loop, with a mind of its own.

`Postbox` says what it answers and where it hangs up, and keeps what it was given: the envelopes it
accepted, and every octet of the wire inside TLS. `serving(postbox)` yields the port it listens on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Postbox:
    """What a peer answers (`None` is its own 250), and what it got."""

    mail: str | None = None
    rcpt: dict[str, str] = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    cuts_after_dot: int = 0
    silent_after_dot: bool = False
    cuts_at_quit: bool = False
    logins: dict[str, str] = field(default_factory=dict)
    utf8: bool = False
    tls: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None

    envelopes: list[Envelope] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    taken_then_cut: list[Envelope] = field(default_factory=list)
    wire: bytearray = field(default_factory=bytearray)
    got_dot: asyncio.Event = field(default_factory=asyncio.Event)
    answer_now: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> list[EmailMessage]:
        return [parsed(envelope) for envelope in self.envelopes]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.mail is None or self.mail.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return self.mail or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.rcpt.get(address, "250 OK")
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        elif answer == "cut":
            hang_up(server)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.got_dot.set()
        if self.cuts_after_dot:
            self.cuts_after_dot -= 1
            self.taken_then_cut.append(envelope)
            hang_up(server)
            return "250 nobody hears this"
        if self.silent_after_dot:
            await self.answer_now.wait()
        answer = self.data.pop(0) if self.data else "250 taken"
        if answer.startswith("2"):
            self.envelopes.append(envelope)
            self.sessions.append(session)
        return answer

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.cuts_at_quit:
            hang_up(server)
        return "221 Bye"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any
    ) -> AuthResult:
        assert isinstance(login, LoginPassword)
        right = self.logins.get(login.login.decode()) == login.password.decode()
        return AuthResult(success=right, handled=False)


class Peer(SMTP):
    """aiosmtpd, keeping the octets as they came."""

    def __init__(self, postbox: Postbox) -> None:
        self._postbox = postbox
        super().__init__(
            postbox,
            hostname="peer.example",
            loop=asyncio.get_running_loop(),
            enable_SMTPUTF8=postbox.utf8,
            tls_context=postbox.starttls,
            require_starttls=postbox.starttls is not None,
            auth_required=bool(postbox.logins),
            auth_require_tls=postbox.tls is None,
            authenticator=postbox.authenticate,
        )

    def data_received(self, data: bytes) -> None:
        self._postbox.wire += data
        super().data_received(data)


def hang_up(peer: SMTP) -> None:
    """End the connection as a crash would: without a word, and without sending what is buffered."""
    if peer.transport is not None:
        cast("asyncio.Transport", peer.transport).abort()


def parsed(envelope: Envelope) -> EmailMessage:
    assert isinstance(envelope.original_content, bytes)
    message = message_from_bytes(envelope.original_content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


@asynccontextmanager
async def serving(postbox: Postbox) -> AsyncIterator[int]:
    peers: list[Peer] = []

    def peer() -> Peer:
        peers.append(Peer(postbox))
        return peers[-1]

    server = await asyncio.get_running_loop().create_server(peer, "127.0.0.1", 0, ssl=postbox.tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in peers:
            hang_up(one)
        conversations = [one._handler_coroutine for one in peers if one._handler_coroutine is not None]
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


@asynccontextmanager
async def speaking(greeting: bytes | None, *, then_close: bool = False) -> AsyncIterator[int]:
    """A TCP peer that says one thing, or nothing, and then waits or hangs up."""
    writers: list[asyncio.StreamWriter] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if greeting is not None:
            writer.write(greeting)
            await writer.drain()
        if then_close:
            writer.close()
        else:
            await reader.read()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
