"""Tells what happens in the demo: one line a thing, with the story's time in front.

Listens to jobd's events and to the SMTP server. A terminal that goes away disturbs neither.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from rich.console import Console
from rich.text import Text

from jobd import JobdError, Jobs
from jobd.events import JobFinished

from .clock import Clock
from .exchanges import Exchange
from .mails import wall

STYLES = {"mail": "green", "busy": "yellow", "gave up": "red", "planned": "dim"}


class _Console(Console):
    def on_broken_pipe(self) -> None:  # rich would end the process on the spot
        raise OSError("nobody reads this any more")


class Page:
    """Where lines are printed; calls `reader_left` when nobody can read them any more."""

    def __init__(self, *, reader_left: Callable[[], None]) -> None:
        self._console = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._reader_left = reader_left

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of pieces, each a text or a text with its style."""
        try:
            self._console.print(Text.assemble(*parts))
        except OSError:
            # Else Python, at its end, would complain about the lines that it could not write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._reader_left()


class Narrator:
    """Knows what the events of the daemon and of the SMTP server mean in the story."""

    def __init__(self, page: Page, clock: Clock) -> None:
        self._page = page
        self._clock = clock
        self._still_there: set[str] = set()

    def tell(self, what: str, text: str) -> None:
        """Print what happened just now in the story."""
        when = f"{wall(self._clock.now()):>16}"
        self._page.line((f"{when}  ", "dim"), (f"{what:<9}  ", STYLES.get(what, "bold cyan")), text)

    def introduce(self, exchanges: list[Exchange]) -> None:
        """Tell what is going to happen."""
        for exchange in exchanges:
            self._still_there.add(exchange.name)
            if exchange.completed_at is None:
                *some, last = map(str, exchange.reminder_days)
                plan = f"{wall(exchange.exchange_date)} in {exchange.timezone}, "
                plan += f"reminders {', '.join(some)} and {last} days before"
            else:
                plan = f"over since {wall(exchange.completed_at)}, to be removed 30 days later"
            self.tell("planned", f"{exchange.name}: {plan}")

    def arrived(self, mail: EmailMessage) -> None:
        """A mail reached the SMTP server."""
        self.tell("mail", f"{mail['To'].addresses[0].addr_spec} got: {mail['Subject']}")

    def put_off(self, address: str, answer: str) -> None:
        """The SMTP server asked to come again."""
        code, _, _ = answer.partition(" ")
        self.tell("busy", f"{address} answered {code}: jobd tries again in 4 seconds")

    async def listen(self, jobs: Jobs) -> None:
        """Tell of every job that ends, for ever."""
        ended: asyncio.Queue[JobFinished] = asyncio.Queue()
        jobs.events.subscribe(JobFinished, ended.put_nowait)
        while True:
            event = await ended.get()
            if event.state == "dead":
                self.tell("gave up", f"{event.kind}: {event.reason}")
            elif event.state == "succeeded" and event.kind != "email":  # those are told when they arrive
                try:
                    job = await jobs.get(event.id)
                except JobdError:
                    continue
                self._tell_result(event.kind, job.result)

    def _tell_result(self, kind: str, result: dict[str, Any]) -> None:
        match kind:
            case "send_reminders" if result["queued"]:
                days = "1 day" if result["days"] == 1 else f"{result['days']} days"
                mails = "1 mail" if result["queued"] == 1 else f"{result['queued']} mails"
                self.tell("reminders", f"{result['exchange']} is {days} away: {mails} queued")
            case "auto_complete_exchanges":
                for name in result["completed"]:
                    self.tell("completed", f"{name} is over")
            case "purge_old_exchanges":
                for name in result["warned"]:
                    self.tell("warned", f"{name} is removed in a week: a mail to its admin queued")
                for name in result["purged"]:
                    self.tell("purged", f"{name} was removed, with its participants")
                    self._still_there.discard(name)
                    if not self._still_there:
                        self._page.line("\nThat is the end of the story. The daemon goes on until Ctrl-C.")
