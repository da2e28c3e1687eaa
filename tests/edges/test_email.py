"""The built-in handler `email` against a real SMTP server: what arrives, and what each answer leads to."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import trustme

from jobd.errors import ConfigError, PayloadError
from jobd.handlers.email import EmailDeferred, EmailOutcomeUnknown, SmtpServer, send_email
from jobd.outcomes import Discard
from jobd.registry import Registry
from tests.edges.letters import Run, delivered, letter, plain, send
from tests.edges.smtp_peer import Postbox, parsed, serving, speaking

SOON = timedelta(milliseconds=50)
"""A limit that a test expects to run out."""


Tls = Literal["starttls", "tls"]


@dataclass(frozen=True)
class Certificates:
    ca_file: str
    right: ssl.SSLContext
    of_another_host: ssl.SSLContext
    of_a_stranger: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority, stranger = trustme.CA(), trustme.CA()
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    def serving_as(host: str, issuer: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issuer.issue_cert(host).configure_cert(context)
        return context

    return Certificates(
        ca_file=str(ca_file),
        right=serving_as("127.0.0.1", authority),
        of_another_host=serving_as("mail.other.example", authority),
        of_a_stranger=serving_as("127.0.0.1", stranger),
    )


@asynccontextmanager
async def secured(
    box: Postbox, certificate: ssl.SSLContext, tls: Tls = "starttls", **settings: Any
) -> AsyncIterator[SmtpServer]:
    if tls == "tls":
        box.tls = certificate
    else:
        box.starttls = certificate
    async with serving(box) as port:
        yield SmtpServer(host="127.0.0.1", port=port, tls=tls, sender="a@shop.example", **settings)


# The session


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_mail_arrives_over_a_verified_tls_session(tls: Tls, certificates: Certificates) -> None:
    box = Postbox()
    async with secured(box, certificates.right, tls, ca_file=certificates.ca_file) as server:
        result = await send(server, letter(to=["ann@a.example", "Bob <bob@b.example>"]))
    assert result["accepted"] == box.envelopes[0].rcpt_tos == ["ann@a.example", "bob@b.example"]
    assert result["refused"] == {}
    assert box.messages[0]["Message-ID"] == result["message_id"]
    assert box.messages[0]["Subject"] == "Hello"
    assert box.wire.endswith(b"QUIT\r\n")


@pytest.mark.parametrize("certificate", ["of_another_host", "of_a_stranger"])
@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_a_server_with_a_wrong_certificate_gets_neither_password_nor_mail(
    tls: Tls, certificate: str, certificates: Certificates
) -> None:
    box = Postbox()
    login: dict[str, Any] = {"username": "shop", "password": "s3cret", "ca_file": certificates.ca_file}
    async with secured(box, getattr(certificates, certificate), tls, **login) as server:
        with pytest.raises(EmailDeferred, match="certificate verify failed"):
            await send(server)
    assert b"AUTH" not in box.wire
    assert b"MAIL" not in box.wire


async def test_without_a_ca_file_the_systems_authorities_decide(certificates: Certificates) -> None:
    async with secured(Postbox(), certificates.right) as server:
        with pytest.raises(EmailDeferred, match="certificate verify failed"):
            await send(server)


async def test_a_server_that_does_not_offer_starttls_gets_neither_password_nor_mail() -> None:
    box = Postbox()
    async with plain(box, username="shop", password="s3cret") as server:
        with pytest.raises(EmailDeferred, match=r"tls = 'starttls'.*STARTTLS extension not supported"):
            await send(replace(server, tls="starttls"))
    assert b"AUTH" not in box.wire
    assert b"MAIL" not in box.wire


async def test_a_ca_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigError, match=r"smtp\.ca_file"):
        await send(SmtpServer(host="127.0.0.1", sender="a@shop.example", ca_file=missing))


async def test_the_right_password_is_let_in(certificates: Certificates) -> None:
    box = Postbox(logins={"shop": "s3cret"})
    login: dict[str, Any] = {"username": "shop", "password": "s3cret", "ca_file": certificates.ca_file}
    async with secured(box, certificates.right, **login) as server:
        await send(server)
    assert box.sessions[0].authenticated
    assert "s3cret" not in repr(server)


async def test_a_wrong_password_is_retried_and_not_held_against_the_mail(certificates: Certificates) -> None:
    login: dict[str, Any] = {"username": "shop", "password": "0ld-one", "ca_file": certificates.ca_file}
    async with secured(Postbox(logins={"shop": "s3cret"}), certificates.right, **login) as server:
        with pytest.raises(EmailDeferred, match="535") as refusal:
            await send(server)
    assert refusal.value.code == 535
    assert "0ld-one" not in str(refusal.value)


async def test_a_server_that_demands_a_login_is_retried(certificates: Certificates) -> None:
    box = Postbox(logins={"shop": "s3cret"})
    async with secured(box, certificates.right, ca_file=certificates.ca_file) as server:
        with pytest.raises(EmailDeferred, match="answered MAIL with 530"):
            await send(server)


@pytest.mark.parametrize(
    ("greeting", "then_close"),
    [
        (None, False),
        (None, True),
        (b"554 no service here\r\n", False),
        (b"421 busy\r\n", True),
        (b"HTTP/1.1 400 Bad Request\r\n", True),
        (b"220 peer.example\r\n", True),
    ],
)
async def test_a_server_that_does_not_greet_properly_is_retried(
    greeting: bytes | None, then_close: bool
) -> None:
    async with speaking(greeting, then_close=then_close) as port:
        server = SmtpServer(host="127.0.0.1", port=port, tls="none", sender="a@shop.example", timeout=SOON)
        with pytest.raises(EmailDeferred, match=f"cannot open an SMTP session with 127.0.0.1:{port}"):
            await send(server)


async def test_a_handshake_that_never_ends_is_retried() -> None:
    async with speaking(None) as port:
        server = SmtpServer(host="127.0.0.1", port=port, tls="tls", sender="a@shop.example", timeout=SOON)
        with pytest.raises(EmailDeferred, match="Timed out"):
            await send(server)


async def test_a_port_where_nobody_listens_is_retried() -> None:
    async with speaking(None) as port:
        pass
    with pytest.raises(EmailDeferred, match="cannot open an SMTP session"):
        await send(SmtpServer(host="127.0.0.1", port=port, tls="none", sender="a@shop.example"))


async def test_a_server_that_hangs_up_at_quit_has_the_mail_all_the_same() -> None:
    box = Postbox(cuts_at_quit=True)
    async with plain(box) as server:
        assert (await send(server))["accepted"] == ["ann@a.example"]
    assert len(box.envelopes) == 1


# What the answers lead to


@pytest.mark.parametrize("code", [421, 450, 451, 452])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_temporary_answer_is_retried_with_the_servers_words(step: str, code: int) -> None:
    async with plain(Postbox(**answering(step, f"{code} later please"))) as server:
        with pytest.raises(EmailDeferred, match=f"{step}.*{code} later please") as refusal:
            await send(server)
    assert refusal.value.code == code
    assert not isinstance(refusal.value, EmailOutcomeUnknown)


@pytest.mark.parametrize("code", [550, 552, 553, 554])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_a_permanent_answer_discards_the_job_with_the_servers_words(step: str, code: int) -> None:
    async with plain(Postbox(**answering(step, f"{code} 5.7.1 never"))) as server:
        with pytest.raises(Discard, match=f"{code} 5.7.1 never"):
            await send(server)


def answering(step: str, answer: str) -> dict[str, Any]:
    answers: dict[str, dict[str, Any]] = {
        "MAIL": {"mail": answer},
        "RCPT": {"rcpt": {"ann@a.example": answer}},
        "DATA": {"data": [answer]},
    }
    return answers[step]


async def test_recipients_refused_for_good_stand_in_the_result_and_the_others_get_the_mail() -> None:
    box = Postbox(rcpt={"bob@b.example": "550 5.1.1 no such user"})
    async with plain(box) as server:
        result = await send(server, letter(to=["ann@a.example", "bob@b.example"], cc="cy@c.example"))
    assert result["accepted"] == box.envelopes[0].rcpt_tos == ["ann@a.example", "cy@c.example"]
    assert result["refused"] == {"bob@b.example": "550 5.1.1 no such user"}


async def test_while_one_recipient_is_deferred_nobody_gets_the_mail_so_that_nobody_gets_it_twice() -> None:
    box = Postbox(rcpt={"bob@b.example": "451 greylisted"})
    async with plain(box) as server:
        mail = letter(to=["ann@a.example", "bob@b.example"])
        with pytest.raises(EmailDeferred, match="451 greylisted"):
            await send(server, mail)
        assert box.envelopes == []
        del box.rcpt["bob@b.example"]
        await send(server, mail, Run(attempt=2))
    assert [envelope.rcpt_tos for envelope in box.envelopes] == [["ann@a.example", "bob@b.example"]]


async def test_on_the_last_attempt_those_who_are_not_deferred_get_the_mail() -> None:
    box = Postbox(rcpt={"bob@b.example": "451 greylisted"})
    async with plain(box) as server:
        mail = letter(to=["ann@a.example", "bob@b.example"])
        result = await send(server, mail, Run(attempt=10, max_attempts=10))
    assert box.envelopes[0].rcpt_tos == result["accepted"] == ["ann@a.example"]
    assert result["refused"] == {"bob@b.example": "451 greylisted"}


async def test_a_job_whose_every_recipient_is_deferred_fails_on_the_last_attempt_too() -> None:
    async with plain(Postbox(rcpt={"ann@a.example": "451 greylisted"})) as server:
        with pytest.raises(EmailDeferred):
            await send(server, run=Run(attempt=10, max_attempts=10))


async def test_a_connection_lost_among_the_recipients_is_retried() -> None:
    box = Postbox(rcpt={"bob@b.example": "cut"})
    async with plain(box) as server:
        with pytest.raises(EmailDeferred, match="nothing was sent"):
            await send(server, letter(to=["ann@a.example", "bob@b.example"]))
    assert box.envelopes == []


async def test_a_mail_cut_off_after_the_final_dot_is_sent_again_under_the_same_message_id() -> None:
    box = Postbox(cuts_after_dot=2)
    run = Run()
    async with plain(box) as server:
        for attempt in (1, 2):
            with pytest.raises(EmailOutcomeUnknown, match="same Message-ID"):
                await send(server, run=replace(run, attempt=attempt))
        result = await send(server, run=replace(run, attempt=3))
    seen = [parsed(envelope)["Message-ID"] for envelope in [*box.taken_then_cut, *box.envelopes]]
    assert seen == [result["message_id"]] * 3


async def test_the_message_id_is_made_of_job_and_generation_under_the_senders_domain() -> None:
    run = Run()
    first = await delivered(letter(), run=run)
    retried_by_hand = await delivered(letter(sender="x@news.example"), run=replace(run, generation=2))
    assert first["Message-ID"] == f"<{run.id}.1@shop.example>"
    assert retried_by_hand["Message-ID"] == f"<{run.id}.2@news.example>"


async def test_the_answer_to_the_message_may_take_longer_than_any_other() -> None:
    box = Postbox(silent_after_dot=True)
    # Long enough for all the others, however busy the machine is.
    timeout = timedelta(seconds=1)
    async with plain(box, timeout=timeout) as server:
        sending = asyncio.create_task(send(server))
        await box.got_dot.wait()
        asyncio.get_running_loop().call_later(1.5 * timeout.total_seconds(), box.answer_now.set)
        assert (await sending)["accepted"] == ["ann@a.example"]
    assert server.data_timeout == timedelta(minutes=10)


async def test_a_server_that_never_answers_the_message_leaves_the_outcome_unknown() -> None:
    async with plain(Postbox(silent_after_dot=True), data_timeout=SOON) as server:
        with pytest.raises(EmailOutcomeUnknown):
            await send(server)


async def test_a_cancelled_run_lets_go_of_the_server_at_once() -> None:
    box = Postbox(silent_after_dot=True)
    async with plain(box) as server:
        sending = asyncio.create_task(send(server))
        await box.got_dot.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert b"QUIT" not in box.wire


async def test_a_mail_without_any_sender_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"smtp\.sender"):
        await send(SmtpServer(host="127.0.0.1"))


# How it fits into jobd


async def test_a_payload_from_the_database_reaches_the_handler_by_its_annotations() -> None:
    registry = Registry()
    registry.handler("email")(send_email)
    handler = registry.get("email")
    assert handler is not None
    box = Postbox()
    async with plain(box) as server:
        arguments, keywords = handler.bind(
            cast("Any", Run()),
            {"to": "ann@a.example", "subject": "Hello", "text": "Hi"},
            {SmtpServer: server},
        )
        await send_email(*arguments, **keywords)
        with pytest.raises(PayloadError) as refusal:
            handler.bind(
                cast("Any", Run()), {"to": "canary\n", "subject": "x", "text": ""}, {SmtpServer: server}
            )
    assert len(box.envelopes) == 1
    assert "canary" not in str(refusal.value)


def test_naming_the_built_in_handlers_imports_none_of_them() -> None:
    code = (
        "import sys, jobd.handlers; "
        "sys.exit(bool({'aiosmtplib', 'pydantic', 'jobd.handlers.email'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
