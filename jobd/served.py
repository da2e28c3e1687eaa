"""What a daemon serves: which queues, and which handlers besides the application's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobd.app import Jobs

if TYPE_CHECKING:
    from jobd.settings import Settings


def served_queues(jobs: Jobs, settings: Settings, asked: Sequence[str]) -> tuple[str, ...]:
    """The queues a daemon serves: those asked for, else `default`, its handlers' and [queues.*]."""
    if asked:
        return tuple(dict.fromkeys(asked))
    return tuple(dict.fromkeys(["default", *jobs.registry.queues(), *settings.queues]))


def add_built_in_handlers(jobs: Jobs, settings: Settings) -> None:
    """Give the application the handlers that its settings ask for; those it has itself stay."""
    smtp = settings.smtp
    if smtp.host is None:
        return
    from jobd import handlers
    from jobd.handlers.email import SmtpServer

    server = SmtpServer(
        host=smtp.host,
        port=smtp.port,
        username=smtp.username,
        password=smtp.password.get_secret_value() if smtp.password else None,
        tls=smtp.tls,
        sender=smtp.sender,
        timeout=smtp.timeout,
        ca_file=smtp.ca_file,
    )
    handlers.register(jobs, "email", server)
