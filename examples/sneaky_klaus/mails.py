"""The mails: payloads of jobd's built-in kind `email`, and how often one is tried."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from jobd import Backoff
from jobd.handlers.email import Email

from .exchanges import Exchange, Participant

PATIENCE: dict[str, Any] = {
    "max_attempts": 3,
    "backoff": Backoff("exponential", base=timedelta(seconds=4), minimum=timedelta(seconds=4),
                       maximum=timedelta(seconds=60)),
}  # fmt: skip


def reminder(exchange: Exchange, participant: Participant, *, days: int) -> Email:
    """What a participant gets some days before. Raises ValueError for an address that is none."""
    when = "tomorrow" if days == 1 else f"in {days} days"
    return Email(
        to=f"{quoted(participant.name)} <{participant.email}>",
        subject=f"{exchange.name} is {when}",
        text=f"Hello {participant.name},\n\n"
        f"{exchange.name} is on {wall(exchange.exchange_date)} ({exchange.timezone}).\n"
        "Is your gift ready?\n\nSneaky Klaus\n",
    )


def purge_warning(exchange: Exchange, *, purged_on: datetime) -> Email:
    """What the admin gets before an exchange is removed. Raises ValueError for an address that is none."""
    return Email(
        to=exchange.admin_email,
        subject=f"{exchange.name} will be removed on {purged_on.day} {purged_on:%B}",
        text=f"{exchange.name} is over. With its participants it will be removed on "
        f"{purged_on:%Y-%m-%d}.\n\nSneaky Klaus\n",
    )


def wall(moment: datetime) -> str:
    """Like `Wed 4 Nov 18:00`."""
    return f"{moment:%a} {moment.day} {moment:%b %H:%M}"


def quoted(name: str) -> str:
    """A name as mail addresses carry it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
