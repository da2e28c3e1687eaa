"""Tells what happens in the demo, one line a thing, with the story's time in front.

Listens to jobd's events and to the SMTP server. Knows nothing of how either works, and never lets a
terminal that went away disturb them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from email.message import EmailMessage
from uuid import UUID

from rich.console import Console
from rich.text import Text

from jobd import JobNotFound, Jobs
from jobd.events import JobFinished

from .clock import Clock
from .mails import wall
from .story import Chapter

COLOURS = {"reminders": "cyan", "mail": "green", "busy": "yellow", "gave up": "red"}


class Narrator:
    """Prints lines; calls `reader_left` when nobody can read them any more."""

    def __init__(self, clock: Clock, *, reader_left: Callable[[], None]) -> None:
        self._clock = clock
        self._reader_left = reader_left
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._ended: asyncio.Queue[JobFinished] = asyncio.Queue()
        self._mails_to_come = 0
        self._still_there = {"Book club"}

    def say(self, *parts: str | tuple[str, str]) -> None:
        """Print one line of pieces, each a text or a text with its style."""
        try:
            self._console.print(Text.assemble(*parts))
        except OSError:
            # Python would complain at its end about what it could not write.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._reader_left()

    def tell(self, what: str, text: str) -> None:
        """Print what happened just now in the story."""
        when = f"{wall(self._clock.now()):>16}"
        self.say((f"  {when}  ", "dim"), (f"{what:<10}", COLOURS.get(what, "bold")), text)

    def introduce(self, chapters: list[Chapter]) -> None:
        """Tell what is going to happen."""
        for chapter in chapters:
            exchange = chapter.exchange
            self.tell(
                "matched",
                f"{exchange.name}: {wall(exchange.exchange_date)} in {exchange.timezone}; "
                f"{chapter.reminders} reminder jobs planned",
            )
            self._mails_to_come += chapter.mails
            self._still_there.add(exchange.name)

    def arrived(self, mail: EmailMessage) -> None:
        """A mail reached the SMTP server."""
        self.tell("mail", f"to {mail['To'].addresses[0].addr_spec}: {mail['Subject']}")

    def put_off(self, address: str, answer: str) -> None:
        """The SMTP server asked to come again."""
        self.tell("busy", f"{address} answered {answer.split(' ', 1)[0]}; jobd tries again in 4 seconds")

    def listen(self, jobs: Jobs) -> None:
        """Hear of every job that ends."""
        loop = asyncio.get_running_loop()
        jobs.events.subscribe(
            JobFinished, lambda event: loop.call_soon_threadsafe(self._ended.put_nowait, event)
        )

    async def run(self, jobs: Jobs) -> None:
        """Tell of jobs that ended, for ever."""
        while True:
            event = await self._ended.get()
            if event.state == "dead":
                self.tell("gave up", f"{event.kind}: {event.reason}")
            elif event.state == "succeeded" and event.kind != "email":
                await self._tell_result(jobs, event.kind, event.id)

    async def _tell_result(self, jobs: Jobs, kind: str, id: UUID) -> None:
        try:
            result = (await jobs.get(id)).result
        except JobNotFound:
            return
        match kind:
            case "send_reminders" if result["queued"]:
                days = "1 day" if result["days"] == 1 else f"{result['days']} days"
                self.tell("reminders", f"{result['exchange']}, {days} before: {result['queued']} mails queued")
            case "auto_complete_exchanges":
                for name in result["completed"]:
                    self.tell("completed", f"{name} is over")
            case "purge_old_exchanges":
                for name in result["warned"]:
                    self.tell("warned", f"{name} will be removed in a week; its admin gets a mail")
                for name in result["purged"]:
                    self.tell("purged", f"{name} was removed with its participants, a month after it was over")
                    self._still_there.discard(name)
                if result["purged"] and not self._still_there:
                    self.say("\nThat was the whole story. The daemon goes on; Ctrl-C ends it.")
