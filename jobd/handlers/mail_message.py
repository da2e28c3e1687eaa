"""What a mail is, before it meets a server: the payload of kind `email`, and its octets.

`Email` refuses whatever could end a header or an SMTP command early; `compose` writes the message as
RFC 5322 wants it: CRLF only, seven bits only (unless a mailbox itself needs UTF-8), no line over
998 octets, no Bcc. Addresses and headers are written here because the standard library folds
non-ASCII names and long URLs into forms that some readers show wrongly. Nothing here talks to a server.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_RECIPIENTS: Final = 100
"""To, Cc and Bcc together. RFC 5321, 4.5.3.1.8: every server takes at least this many in one transaction."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAILBOX = re.compile(
    r"""(?: (?P<name> "(?:[^"\\]|\\.)*" | [^<>"@]* ) \s* <(?P<spec>[^<>\s]+)> | (?P<bare>[^<>\s]+) )""", re.X
)
_LOCAL_PART = re.compile(r"""[^\s"(),:;<>@\[\\\]]+""")
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*"
)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]*")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,60}")
_CONTENT_TYPE = re.compile(
    r"(?P<main>[\w.+-]+)/(?P<sub>[\w.+-]+)(?:; ?charset=(?P<charset>[\w.+-]+))?", re.ASCII
)
_OWN_HEADERS = frozenset(
    {"from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version"}
    | {"return-path", "received"}
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address, its domain in ASCII (IDNA 2008), with the name shown beside it."""

    name: str
    local_part: str
    domain: str

    @property
    def address(self) -> str:
        return f"{self.local_part}@{self.domain}"


def parse_mailbox(text: str) -> Mailbox:
    """Read `a@b.example` or `Some Name <a@b.example>`; ValueError says what is wrong without quoting it.

    Stricter than RFC 5322: one address, no comments, no quoted local part, no address literal. What
    is refused here is what parsers are known to disagree about.
    """
    found = _MAILBOX.fullmatch(_one_line(text, "an address").strip())
    if found is None:
        raise ValueError(
            "not one mail address: write 'a@b.example' or 'Name <a@b.example>', several as a list"
        )
    local_part, _, domain = (found["spec"] or found["bare"]).rpartition("@")
    if not domain.isascii():
        from idna import IDNAError, encode

        try:
            domain = encode(domain, uts46=True).decode("ascii")
        except IDNAError:
            raise ValueError("the domain of a mail address is not a valid host name") from None
    if _DOMAIN.fullmatch(domain) is None:
        raise ValueError("the domain of a mail address is not a valid host name")
    if _LOCAL_PART.fullmatch(local_part) is None or len(local_part.encode()) > 64:
        raise ValueError(
            "the part before the @ of a mail address is empty, too long, or has a forbidden character"
        )
    name = (found["name"] or "").strip()
    if name.startswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Mailbox(name, local_part, domain)


def _one_line(text: str, what: str, *, limit: int = 900) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"{what} may not contain line breaks or other control characters")
    if len(text) > limit:
        raise ValueError(f"{what} may not be longer than {limit} characters")
    return text


def _each(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _checked_mailboxes(value: str | list[str]) -> str | list[str]:
    for text in _each(value):
        parse_mailbox(text)
    return value


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(name) is None:
            raise ValueError("a header name is 1 to 60 printable ASCII characters without a colon")
        if name.lower() in _OWN_HEADERS or name.lower().startswith(("content-", "resent-")):
            raise ValueError(f"header {name} is written from the mail's own fields and cannot be set")
        _one_line(value, f"header {name}")
    return headers


def _checked_filename(filename: str) -> str:
    if not filename or "/" in filename or "\\" in filename:
        raise ValueError("a filename is a name without a folder")
    return _one_line(filename, "a filename", limit=200)


def _checked_content_type(content_type: str) -> str:
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None or found["main"].lower() in {"multipart", "message"}:
        raise ValueError("a content type is 'type/subtype', and neither multipart nor message")
    return content_type


def _checked_base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise ValueError("the content of an attachment must be base64") from None
    return text


def _checked_subject(subject: str) -> str:
    return _one_line(subject, "the subject")


Mailboxes = Annotated[str | list[str], AfterValidator(_checked_mailboxes)]
Body = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class Attachment(BaseModel):
    """A file of a mail. Its content travels inside the payload, so `max_payload` bounds it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    filename: Annotated[str, AfterValidator(_checked_filename)]
    content_base64: Annotated[str, AfterValidator(_checked_base64)]
    content_type: Annotated[str, AfterValidator(_checked_content_type)] = "application/octet-stream"

    @classmethod
    def of(cls, filename: str, content: bytes, content_type: str = "application/octet-stream") -> Self:
        return cls(filename=filename, content_base64=b64encode(content).decode(), content_type=content_type)


class Email(BaseModel):
    """The payload of kind `email`. Addresses are `a@b.example` or `Name <a@b.example>`.

    `sender` stands in for the one configured with the server. `bcc` reaches the server as recipients
    and never the message. `headers` adds fields such as List-Unsubscribe. Errors never quote the payload.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    to: Mailboxes = Field(default_factory=list)
    subject: Annotated[str, AfterValidator(_checked_subject)]
    text: Body | None = None
    html: Body | None = None
    sender: Annotated[str, AfterValidator(_checked_mailboxes)] | None = None
    reply_to: Mailboxes | None = None
    cc: Mailboxes = Field(default_factory=list)
    bcc: Mailboxes = Field(default_factory=list)
    headers: Annotated[dict[str, str], AfterValidator(_checked_headers)] = Field(default_factory=dict)
    attachments: list[Attachment] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_content_and_recipients(self) -> Self:
        if self.text is None and self.html is None:
            raise ValueError("a mail needs text, html or both")
        if not 1 <= len(self.recipients()) <= MAX_RECIPIENTS:
            raise ValueError(f"a mail needs 1 to {MAX_RECIPIENTS} recipients in to, cc and bcc together")
        return self

    def recipients(self) -> list[str]:
        """The bare addresses of to, cc and bcc, each once, in this order."""
        everyone = [*_each(self.to), *_each(self.cc), *_each(self.bcc)]
        return list(dict.fromkeys(parse_mailbox(text).address for text in everyone))


def compose(mail: Email, *, sender: Mailbox, message_id: str, date: datetime) -> bytes:
    """Write the message as octets ready for DATA, all ASCII unless a local part is not."""
    from email.utils import format_datetime

    lines = [
        _address_line("From", [sender]),
        _address_line("To", map(parse_mailbox, _each(mail.to))) or "To: undisclosed-recipients:;",
        _address_line("Cc", map(parse_mailbox, _each(mail.cc))),
        _address_line("Reply-To", map(parse_mailbox, _each(mail.reply_to))),
        f"Subject: {_encoded(mail.subject, 'Subject')}",
        f"Date: {format_datetime(date)}",
        f"Message-ID: {message_id}",
        *(f"{name}: {_encoded(value, name)}" for name, value in mail.headers.items()),
    ]
    return "".join(f"{line}\r\n" for line in lines if line).encode() + _content(mail)


def _content(mail: Email) -> bytes:
    """The MIME headers and the body. The library ends lines by CRLF whatever mix the text came with."""
    from email.message import EmailMessage
    from email.policy import SMTP

    content = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    if mail.text is not None:
        content.set_content(mail.text)
    if mail.html is not None and mail.text is not None:
        content.add_alternative(mail.html, subtype="html")
    elif mail.html is not None:
        content.set_content(mail.html, subtype="html")
    for attachment in mail.attachments:
        kind = _CONTENT_TYPE.fullmatch(attachment.content_type)
        assert kind is not None  # the model checked it
        content.add_attachment(
            b64decode(attachment.content_base64),
            maintype=kind["main"],
            subtype=kind["sub"],
            filename=attachment.filename,
            params={"charset": kind["charset"]} if kind["charset"] else None,
        )
    return content.as_bytes()


def _address_line(header: str, mailboxes: Iterable[Mailbox]) -> str:
    """One mailbox a line, which keeps lines short without ever breaking inside an address."""
    shown = [f"{_phrase(box.name, header)} <{box.address}>" if box.name else box.address for box in mailboxes]
    return f"{header}: " + ",\r\n ".join(shown) if shown else ""


def _phrase(name: str, header: str) -> str:
    if not name.isascii() or "=?" in name:
        return _encoded(name, header)
    return name if _ATOMS.fullmatch(name) else '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _encoded(text: str, header: str) -> str:
    """ASCII goes out as it is, on one line, so that a URL survives; the rest as encoded words (RFC 2047)."""
    from email.header import Header

    if text.isascii() and "=?" not in text:
        return text
    return Header(text, "utf-8", header_name=header, maxlinelen=76).encode(linesep="\r\n")
