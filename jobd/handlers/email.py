"""The built-in handler of kind `email`: one mail handed to one SMTP server (RFC 5321).

A session is opened for each mail; connections are not kept. What the server answers decides the run:

    to                        answer                what happens
    connect, STARTTLS, AUTH   anything bad          failed, retried: it says nothing about this mail
    MAIL, RCPT, DATA          4xx, or none at all   failed, retried
                              5xx                   the job is dead, the answer is its reason
    some of the recipients    5xx                   sent to the others, the refusals are in the result
                              4xx                   sent to nobody yet; on the last attempt, to the others

A mail can arrive twice when the connection breaks after the final dot, as with every sender of mail
(RFC 1047); its Message-ID is the same then, made of the job's id and generation. Errors and logs name
no recipient. What a mail is made of: see `mail_message`.
"""

import asyncio
import contextlib
import re
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from socket import getfqdn
from typing import TYPE_CHECKING, Any, Final, Literal

from jobd.errors import ConfigError, JobdError
from jobd.handlers.mail_message import Attachment, Email, Mailbox, compose, parse_mailbox
from jobd.outcomes import Discard

if TYPE_CHECKING:
    from aiosmtplib import SMTP

    from jobd.app import Jobs
    from jobd.context import JobContext

__all__ = [
    "Attachment",
    "Email",
    "EmailDeferred",
    "EmailOutcomeUnknown",
    "SmtpServer",
    "register",
    "send_email",
]

CONCURRENCY: Final = 10
"""Sessions that one daemon opens at a time; many servers refuse a client that opens more."""

ATTEMPT_TIMEOUT: Final = timedelta(minutes=15)
QUIT_TIMEOUT: Final = 2.0

_AUTH_DEMANDED: Final = frozenset({530, 534, 535, 538})
"""5xx answers to MAIL or RCPT that speak of our configuration and not of the mail (RFC 4954, 3207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """The server that takes our mail. Its certificate must be valid for `host`; no switch turns that off.

    `ca_file` replaces the system's authorities. `timeout` bounds each step up to the message itself;
    `data_timeout` the wait for the answer to it, which RFC 5321 (4.5.3.2.6) sets to ten minutes
    because giving up sooner is what makes duplicates.
    """

    host: str
    port: int = 587
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender: str | None = None
    timeout: timedelta = timedelta(seconds=30)
    data_timeout: timedelta = timedelta(minutes=10)
    ca_file: str | None = None


class EmailDeferred(JobdError):
    """The mail was not taken now and may be taken later. `code` is the server's, if it answered."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class EmailOutcomeUnknown(EmailDeferred):
    """The message was on its way when the connection ended: it may arrive, and again after the retry."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    """One mail as one server sees it."""

    server: SmtpServer
    sender: str
    recipients: list[str]
    octets: bytes
    last_attempt: bool

    def answer(self, code: int, text: str) -> str:
        """The server's words on one line, without the addresses, which no log may show."""
        for address in self.recipients:
            text = re.sub(re.escape(address), "(recipient)", text, flags=re.IGNORECASE)
        return f"{code} {_one_line(text)}"

    def failed(self, step: str, error: Exception) -> JobdError | Discard:
        """What a failure of a step after the session's opening means for the job."""
        from aiosmtplib import SMTPResponseException

        where = f"{self.server.host}:{self.server.port}"
        code = error.code if isinstance(error, SMTPResponseException) else None
        if code is None or not 400 <= code < 600:
            why = f"{where} gave no proper answer to {step} ({type(error).__name__})"
            if step != "DATA":
                return EmailDeferred(f"{why}: nothing was sent")
            return EmailOutcomeUnknown(f"{why}: it may have the mail; the retry has the same Message-ID")
        assert isinstance(error, SMTPResponseException)
        said = f"{where} answered {step} with {self.answer(code, error.message)}"
        return Discard(said) if code >= 500 and code not in _AUTH_DEMANDED else EmailDeferred(said, code=code)


async def send_email(ctx: "JobContext", payload: Email, smtp: SmtpServer) -> dict[str, Any]:
    """Send the mail; return `message_id`, the `accepted` addresses, and `refused`: address to answer.

    Raises EmailDeferred for a retry, and Discard when the mail, or every recipient, was refused for good.
    """
    sender = _sender(payload, smtp)
    message_id = f"<{ctx.id}.{ctx.generation}@{sender.domain}>"
    recipients = payload.recipients()
    delivery = _Delivery(
        server=smtp,
        sender=sender.address,
        recipients=recipients,
        octets=compose(payload, sender=sender, message_id=message_id, date=datetime.now(UTC)),
        last_attempt=ctx.attempt >= ctx.max_attempts,
    )
    client = await _client(smtp)
    try:
        await _open_session(client, smtp)
        refused = await _hand_over(client, delivery)
    finally:
        await _end_session(client)
    accepted = [address for address in recipients if address not in refused]
    ctx.log.info("email sent", message_id=message_id, accepted=len(accepted), refused=len(refused))
    return {"message_id": message_id, "accepted": accepted, "refused": refused}


def register(jobs: "Jobs", server: SmtpServer) -> None:
    """Add the handler for kind `email` to `jobs`, and the server it talks to as a resource."""
    jobs.handler("email", concurrency=CONCURRENCY, timeout=ATTEMPT_TIMEOUT)(send_email)
    jobs.resource(SmtpServer, server)


def _sender(mail: Email, smtp: SmtpServer) -> Mailbox:
    if mail.sender is not None:
        return parse_mailbox(mail.sender)
    if smtp.sender is None:
        raise ConfigError(
            "smtp.sender", None, "set it to the address mails come from, or give each mail a sender"
        )
    try:
        return parse_mailbox(smtp.sender)
    except ValueError as error:
        raise ConfigError("smtp.sender", smtp.sender, str(error)) from None


async def _client(smtp: SmtpServer) -> "SMTP":
    from aiosmtplib import SMTP

    try:
        context = None if smtp.tls == "none" else await asyncio.to_thread(_tls_context, smtp.ca_file)
    except OSError as error:
        raise ConfigError("smtp.ca_file", smtp.ca_file, f"cannot be used as certificates: {error}") from None
    return SMTP(
        hostname=smtp.host,
        port=smtp.port,
        username=smtp.username,
        password=smtp.password,
        use_tls=smtp.tls == "tls",
        start_tls=smtp.tls == "starttls",
        tls_context=context,
        local_hostname=await asyncio.to_thread(_own_name),
        timeout=smtp.timeout.total_seconds(),
    )


async def _open_session(client: "SMTP", smtp: SmtpServer) -> None:
    """Connect, secure and log in. Nothing that goes wrong here says anything about the mail."""
    from aiosmtplib import SMTPException, SMTPResponseException

    try:
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
    except (SMTPException, OSError) as error:
        code = error.code if isinstance(error, SMTPResponseException) else None
        said = f"{code} {error.message}" if isinstance(error, SMTPResponseException) else str(error)
        raise EmailDeferred(
            f"cannot open an SMTP session with {smtp.host}:{smtp.port} (tls = {smtp.tls!r}): "
            f"{_one_line(said) or type(error).__name__}",
            code=code,
        ) from None


async def _hand_over(client: "SMTP", delivery: _Delivery) -> dict[str, str]:
    """Run one mail transaction; return who was refused, with the answers."""
    from aiosmtplib import SMTPException, SMTPRecipientRefused

    options = [f"SIZE={len(delivery.octets)}"] if client.supports_extension("size") else []
    if not (delivery.sender + "".join(delivery.recipients)).isascii() or not delivery.octets.isascii():
        if not client.supports_extension("smtputf8"):
            raise Discard(
                "an address has non-ASCII letters before the @, and the server does not offer SMTPUTF8"
            )
        options += ["SMTPUTF8", "BODY=8BITMIME"]
    step = "MAIL"
    refused: dict[str, str] = {}
    delayed: list[SMTPRecipientRefused] = []
    try:
        await client.mail(delivery.sender, options=options, encoding="utf-8")
        step = "RCPT"
        for address in delivery.recipients:
            try:
                await client.rcpt(address, encoding="utf-8")
            except SMTPRecipientRefused as error:
                if not client.is_connected or not 400 <= error.code < 600 or error.code in _AUTH_DEMANDED:
                    raise
                refused[address] = delivery.answer(error.code, error.message)
                delayed += [error] if error.code < 500 else []
        everyone_refused = len(refused) == len(delivery.recipients)
        # Sending to some and retrying the rest would send to the first ones again: a job has one outcome.
        if delayed and (everyone_refused or not delivery.last_attempt):
            raise delayed[0]
        if everyone_refused:
            raise Discard(f"every recipient was refused: {'; '.join(sorted(set(refused.values())))}")
        step = "DATA"
        await client.data(delivery.octets, timeout=delivery.server.data_timeout.total_seconds())
    except (SMTPException, OSError) as error:
        # `from None`: the library's texts carry the recipients.
        raise delivery.failed(step, error) from None
    return refused


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:500]


async def _end_session(client: "SMTP") -> None:
    """Part politely if that is quick. The mail's fate is sealed, so nothing that happens here counts."""
    task = asyncio.current_task()
    try:
        if client.is_connected and not (task and task.cancelling()):
            with contextlib.suppress(Exception):
                await client.quit(timeout=QUIT_TIMEOUT)
    finally:
        client.close()


@cache
def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Built once: reading the system's certificates takes tens of milliseconds and a megabyte each time."""
    return ssl.create_default_context(cafile=ca_file)


@cache
def _own_name() -> str:
    """What we call ourselves in EHLO. Without DNS the lookup may take seconds: once, and in a thread."""
    return getfqdn()
