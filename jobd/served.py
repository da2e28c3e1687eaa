"""What a daemon serves: which queues and schedules, and which handlers besides the application's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobd.app import Jobs
from jobd.errors import ConfigError, PayloadError
from jobd.quota_options import QueueOptions, TenantOptions, UseCaseOptions, queue_limits
from jobd.schedule_rows import Terms
from jobd.terms import with_key

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobd.settings import Settings


def served_queues(jobs: Jobs, settings: Settings, asked: Sequence[str]) -> tuple[str, ...]:
    """The queues a daemon serves: those asked for, else `default`, its handlers' and [queues.*]."""
    if asked:
        return tuple(dict.fromkeys(asked))
    return tuple(dict.fromkeys(["default", *jobs.registry.queues(), *settings.queues]))


def code_schedules(jobs: Jobs) -> list[Terms]:
    """Those of the code. Raises ConfigError for a payload that the handler cannot take."""
    for terms in jobs.declared_schedules:
        if error := _misfit(jobs, terms):
            raise ConfigError(f"payload of schedule {terms.id!r}", "***", str(error))
    return list(jobs.declared_schedules)


def file_schedules(jobs: Jobs, settings: Settings) -> list[Terms]:
    """Those of the settings. One that names no queue goes to its handler's, if that is here.

    Raises ConfigError for an id that the code declares, too, and for a payload that the handler cannot take.
    """
    of_the_code = {terms.id for terms in jobs.declared_schedules}
    found: list[Terms] = []
    for number, (terms, queue_said) in enumerate(settings.schedules):
        if terms.id in of_the_code:
            remedy = "is declared by the application's code, too; give one of them another id"
            raise ConfigError(f"schedules[{number}].id", terms.id, remedy)
        if error := _misfit(jobs, terms):
            raise ConfigError(f"schedules[{number}].payload", "***", f"{error} (schedule {terms.id!r})")
        handler = jobs.registry.get(terms.kind)
        queue = terms.queue if queue_said or handler is None else handler.queue
        try:
            found.append(with_key(replace(terms, owner=f"file:{jobs.module}", queue=queue), handler))
        except PayloadError as error:
            remedy = f"{error} (schedule {terms.id!r})"
            raise ConfigError(f"schedules[{number}].payload", "***", remedy) from None
    return found


def _misfit(jobs: Jobs, terms: Terms) -> PayloadError | None:
    """Why the handler of the kind, if it is here, cannot take the payload, as far as an enqueue would see."""
    handler = jobs.registry.get(terms.kind)
    try:
        if handler is not None:
            handler.check(terms.payload, jobs.resources.types)
    except PayloadError as error:
        return error
    return None


def declared_limits(jobs: Jobs, settings: Settings) -> dict[str, dict[str, dict[str, Any]]]:
    """What code and settings say of limits over all daemons, by owner, table and name."""

    def said(models: Mapping[str, BaseModel], names: Collection[str]) -> dict[str, dict[str, Any]]:
        limits = {
            key: {name: value for name in names if (value := getattr(model, name)) is not None}
            for key, model in models.items()
        }
        return {key: said for key, said in limits.items() if said}

    return {
        f"file:{jobs.module}": {
            "queues": {
                name: queue_limits(limits)
                for name, limits in said(
                    settings.queues, QueueOptions.__annotations__.keys() - {"paused"}
                ).items()
            },
            "tenants": said(settings.tenants, TenantOptions.__annotations__.keys()),
            "use_cases": said(settings.use_cases, UseCaseOptions.__annotations__.keys()),
        },
        jobs.owner: {
            "kinds": {
                handler.kind: dict(handler.key_limits) for handler in jobs.registry if handler.key_limits
            }
        },
    }


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
