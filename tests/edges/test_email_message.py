"""What a mail looks like when it arrives at a real SMTP server, and which mails are refused before.

How the session goes, and what the server's answers lead to: see `test_email`.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

import aiosmtplib.email
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from jobd.handlers.email import Attachment, EmailDeferred
from jobd.handlers.mail_message import compose, parse_mailbox
from jobd.outcomes import Discard
from tests.edges.letters import delivered, letter, mailboxes, plain, send, text_of
from tests.edges.smtp_peer import Postbox

# What arrives


async def test_text_and_html_arrive_as_alternatives() -> None:
    message = await delivered(letter(text="Grüße\n", html="<p>Grüße</p>\n"))
    assert message.get_content_type() == "multipart/alternative"
    assert (text_of(message), text_of(message, "html")) == ("Grüße\n", "<p>Grüße</p>\n")


async def test_html_alone_arrives_as_html() -> None:
    message = await delivered(letter(text=None, html="<p>Hi</p>\n"))
    assert (message.get_content_type(), text_of(message, "html")) == ("text/html", "<p>Hi</p>\n")


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("invoice.pdf", "application/pdf"),
        ("Rechnung Jänner — für Müller & Söhne über alle Maßen lang.txt", "text/plain"),
        ('say "hi"; x=y.csv', "text/csv; charset=utf-8"),
        ("日本語.bin", "application/octet-stream"),
    ],
)
async def test_attachments_arrive_octet_by_octet(filename: str, content_type: str) -> None:
    content = bytes(range(256)) * 20 + b"\r\n.\r\n\n.\n\r.\r"
    message = await delivered(
        letter(html="<b>x</b>", attachments=[Attachment.of(filename, content, content_type)])
    )
    [attachment] = message.iter_attachments()
    assert attachment.get_filename() == filename
    assert attachment.get_content_type() == content_type.partition(";")[0]
    assert attachment.get_payload(decode=True) == content
    assert text_of(message) == "Hi there\n"


@pytest.mark.parametrize(
    "subject",
    [
        "Grüße, 🎁 für 日本語",
        "naïve " * 40,
        "a" * 900,
        "=?utf-8?q?not_encoded?=",
        "",
        "🎁" * 200,
        "x: y; <z>",
    ],
)
async def test_any_subject_arrives_as_written(subject: str) -> None:
    assert (await delivered(letter(subject=subject)))["Subject"] == subject


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Ann <ann@a.example>", "Ann"),
        ("Doe, Ann <ann@a.example>", "Doe, Ann"),
        ('"Doe, \\"Ann\\" <x>" <ann@a.example>', 'Doe, "Ann" <x>'),
        ("Åsa Öberg, PhD <ann@a.example>", "Åsa Öberg, PhD"),
        ("日本語の名前 <ann@a.example>", "日本語の名前"),
        ("O'Brien (Shop) <ann@a.example>", "O'Brien (Shop)"),
        ("ann@a.example", ""),
        ("<ann@a.example>", ""),
    ],
)
async def test_any_name_arrives_beside_its_address(written: str, name: str) -> None:
    message = await delivered(letter(to=[written, written.replace("ann@", "second@")], reply_to=written))
    assert mailboxes(message, "To") == [(name, "ann@a.example"), (name, "second@a.example")]
    assert mailboxes(message, "Reply-To") == [(name, "ann@a.example")]


async def test_a_hundred_recipients_with_long_names_arrive_on_lines_that_mail_allows() -> None:
    everyone = [f"Ünal, Person Number {n} <person.{n}@a-rather-long-domain.example>" for n in range(100)]
    box = Postbox()
    async with plain(box) as server:
        await send(server, letter(to=everyone))
    assert len(box.messages[0]["To"].addresses) == 100
    assert max(map(len, bytes(box.wire).split(b"\r\n"))) <= 998


async def test_a_domain_outside_ascii_is_sent_as_its_idna_name() -> None:
    box = Postbox()
    async with plain(box) as server:
        result = await send(server, letter(to="ann@straße.example"))
    assert result["accepted"] == ["ann@xn--strae-oqa.example"]


async def test_an_address_outside_ascii_needs_a_server_that_takes_it() -> None:
    box = Postbox(utf8=True)
    mail = letter(to="Åsa <åsa@a.example>", subject="Grüße")
    async with plain(box) as server:
        await send(server, mail)
    assert box.envelopes[0].rcpt_tos == ["åsa@a.example"]
    assert "SMTPUTF8" in box.envelopes[0].mail_options
    async with plain(Postbox()) as server:
        with pytest.raises(Discard, match="SMTPUTF8"):
            await send(server, mail)


async def test_bcc_gets_the_mail_and_is_seen_by_nobody() -> None:
    box = Postbox(rcpt={"hidden2@h.example": "550 unknown"})
    async with plain(box) as server:
        with capture_logs() as logs:
            await send(server, letter(bcc=["Secret <hidden1@h.example>", "hidden2@h.example"]))
    assert box.envelopes[0].rcpt_tos == ["ann@a.example", "hidden1@h.example"]
    for shown in (str(box.messages[0]), str(logs)):
        assert "hidden" not in shown.lower()
        assert "bcc" not in shown.lower()


@pytest.mark.parametrize(
    "answer", ["550 5.1.1 <Hidden@H.example> unknown", "450 4.2.0 <HIDDEN@h.example> later"]
)
async def test_no_error_names_a_recipient_even_where_the_server_does(answer: str) -> None:
    mail = letter(to=[], bcc="hidden@h.example")
    async with plain(Postbox(rcpt=dict.fromkeys(mail.recipients(), answer))) as server:
        with pytest.raises((Discard, EmailDeferred), match=r"\(recipient\)") as refusal:
            await send(server, mail)
    assert "hidden@" not in "".join(traceback.format_exception(refusal.value)).lower()


async def test_a_mail_to_bcc_alone_shows_undisclosed_recipients() -> None:
    message = await delivered(letter(to=[], bcc="ann@a.example"))
    assert message["To"] == "undisclosed-recipients:;"


async def test_a_long_url_in_a_header_arrives_unbroken() -> None:
    url = "<https://shop.example/unsubscribe?" + "t=0123456789" * 40 + ">"
    message = await delivered(letter(headers={"List-Unsubscribe": url, "X-Note": "für dich"}))
    assert (message["List-Unsubscribe"], message["X-Note"]) == (url, "für dich")


# What never gets that far

BREAKS = [
    "\n",
    "\r",
    "\r\n",
    "\r\n ",
    "\x00",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\x7f",
    "\x1b[31m",
]


@pytest.mark.parametrize("line_break", BREAKS)
@pytest.mark.parametrize(
    "where",
    [
        "subject",
        "to",
        "name",
        "quoted name",
        "cc",
        "bcc",
        "sender",
        "reply_to",
        "header",
        "header name",
        "filename",
        "type",
    ],
)
def test_a_line_break_is_refused_wherever_it_could_become_a_header_or_a_command(
    where: str, line_break: str
) -> None:
    evil = f"canary{line_break}Bcc: victim@v.example"
    with pytest.raises(ValueError) as refusal:
        letter(**smuggling(where, evil))
    assert "canary" not in str(refusal.value)
    assert "victim" not in str(refusal.value)


def smuggling(where: str, evil: str) -> dict[str, Any]:
    match where:
        case "name":
            return {"to": f"{evil} <ann@a.example>"}
        case "quoted name":
            return {"to": f'"{evil}" <ann@a.example>'}
        case "header":
            return {"headers": {"X-Note": evil}}
        case "header name":
            return {"headers": {evil: "x"}}
        case "filename":
            return {"attachments": [{"filename": evil, "content_base64": ""}]}
        case "type":
            return {"attachments": [{"filename": "a", "content_base64": "", "content_type": f"text/{evil}"}]}
        case _:
            return {where: evil}


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@a.example",
        "ann@",
        "ann@a.example, bob@b.example",
        "ann@a.example> SIZE=1",
        "<ann@a.example",
        "a b@c.example",
        "Ann <ann@a.example>, Bob <bob@b.example>",
        "x@y.example <ann@a.example>",
        "ann@a..example",
        "ann@-a_b.example/x",
        "ann@[127.0.0.1]",
        '"ann x"@a.example',
        "ann(comment)@a.example",
        "é" * 40 + "@a.example",
        f"ann@{'a' * 64}.example",
        f"ann@{'a.' * 127}example",
        "a" * 65 + "@a.example",
        "<<ann@a.example>>",
        "group: ann@a.example;",
    ],
)
def test_what_is_not_exactly_one_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="mail address"):
        letter(to=[address])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": None}, "text, html or both"),
        ({"to": []}, "1 to 100 recipients"),
        (
            {"to": [f"a{n}@a.example" for n in range(60)], "bcc": [f"b{n}@a.example" for n in range(41)]},
            "1 to 100",
        ),
        ({"headers": {"Bcc": "x@y.example"}}, "cannot be set"),
        ({"headers": {"content-type": "text/html"}}, "cannot be set"),
        ({"headers": {"X:Y": "z"}}, "header name"),
        ({"headers": {"X-Long": "a" * 901}}, "longer than 900"),
        ({"attachments": [{"filename": "../../etc/passwd", "content_base64": ""}]}, "without a folder"),
        ({"attachments": [{"filename": "a", "content_base64": "@@"}]}, "must be base64"),
        (
            {"attachments": [{"filename": "a", "content_base64": "", "content_type": "message/rfc822"}]},
            "neither",
        ),
        ({"text": "a\x00b"}, "text"),
        ({"Subject": "x"}, "Extra inputs"),
    ],
)
def test_a_mail_that_cannot_be_sent_as_meant_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        letter(**fields)


ENDINGS = [
    "\n.\n",
    "\n.\r\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\n",
    "\r\n.\r",
    "\r\n.\r\n",
    "\r\r\n.\r\r\n",
    "\n\r\n.\n\r\n",
]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("body", ["text", "html"])
@pytest.mark.parametrize("filler", ["plain", "ünïcode", "long " * 300])
async def test_no_body_ends_early_and_smuggles_a_second_mail(ending: str, body: str, filler: str) -> None:
    second = "MAIL FROM:<evil@e.example>\r\nRCPT TO:<victim@v.example>\r\nDATA\r\nX"
    smuggled = f"{filler}{ending}{second}{ending}QUIT\r\n"
    box = Postbox()
    async with plain(box) as server:
        await send(server, letter(**{"text": None, body: smuggled}))
    [message] = box.messages
    wire = bytes(box.wire)
    assert text_of(message, {"text": "plain", "html": "html"}[body]).split() == smuggled.split()
    assert wire.replace(b"\r\n", b"").translate(None, b"\r\n") == wire.replace(b"\r\n", b"")
    assert wire.count(b"\r\n.\r\n") == 1
    assert wire.isascii()


TRICKY = st.text(
    st.sampled_from("aZé日 \t\r\n\"\\<>@,;:()[].=?_-+'\u2028\x00") | st.characters(), max_size=40
)


@given(name=TRICKY, address=TRICKY, subject=TRICKY, value=TRICKY)
def test_whatever_is_accepted_has_one_recipient_and_no_header_that_nobody_asked_for(
    name: str, address: str, subject: str, value: str
) -> None:
    to = f"{name} <{address or 'ann'}@a.example>"
    try:
        mail = letter(to=to, subject=subject, headers={"X-Note": value})
    except ValueError:
        return
    [recipient] = mail.recipients()
    assert aiosmtplib.email.quote_address(recipient) == f"<{recipient}>"
    octets = compose(
        mail, sender=parse_mailbox("shop@s.example"), message_id="<1@s.example>", date=datetime.now(UTC)
    )
    head, _, body = octets.partition(b"\r\n\r\n")
    fields = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert set(fields) == {
        *("From", "To", "Subject", "Date", "Message-ID", "X-Note"),
        *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    }
    assert len(fields) == 9
    assert body == b"Hi there\r\n"
    assert b"\n" not in octets.replace(b"\r\n", b"") and b"\r" not in octets.replace(b"\r\n", b"")
