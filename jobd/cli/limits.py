"""What the verbs that set limits share: options where `none` takes a limit away, and how limits are shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from jobd.cli.output import local, note, print_fields
from jobd.cli.session import call, who
from jobd.duration import format_duration
from jobd.errors import MISSING, ConfigError
from jobd.quota_options import KindOptions, QueueOptions, TenantOptions, UseCaseOptions

if TYPE_CHECKING:
    from jobd.door import Link
    from jobd.quotas import Quotas, Strange

Answer = TypeVar("Answer")

LIMITS = {
    name
    for options in (QueueOptions, TenantOptions, KindOptions, UseCaseOptions)
    for name in options.__annotations__
}
NUMBERS = ("max_running", "max_pending", "burst", "weight", "key_limit", "key_burst")

# So many known names are told beside one that is not.
KNOWN = 10

MaxRunning = Annotated[
    str | None,
    typer.Option("--max-running", metavar="N|none", help="So many jobs at once, over all daemons."),
]
RateText = Annotated[
    str | None,
    typer.Option("--rate", metavar="RATE|none", help="So many may start, like 10/s, 100/m or 5/2h."),
]
Burst = Annotated[
    str | None, typer.Option("--burst", metavar="N|none", help="So many of the rate at once, after a pause.")
]


def said(**options: Any) -> dict[str, Any]:
    """The limits that were named; `none` is None. Raises ConfigError for what is no number."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if value == "none":
            found[name] = None
        elif name in NUMBERS:
            try:
                found[name] = int(value)
            except ValueError:
                raise ConfigError(option(name), value, "must be a whole number, or none") from None
        else:
            found[name] = value
    return found


def option(name: str) -> str:
    """How the option of a limit is typed."""
    return f"--{name.replace('_', '-')}"


def ask(work: Callable[[Quotas], Awaitable[Answer]], database_url: str | None) -> Answer:
    """Run `work` on the limits; what it refuses is named as it was typed."""
    from jobd.quotas import Quotas

    async def asked(link: Link) -> Answer:
        return await work(Quotas(link))

    try:
        return call(asked, database_url=database_url)
    except ConfigError as error:
        if error.setting == "limits":
            raise ConfigError("limits", MISSING, "none is named; see the verb's --help") from error
        if error.setting in LIMITS:
            remedy = error.remedy.replace("None", "none")
            raise ConfigError(option(error.setting), error.value, remedy) from error
        raise


def set_and_show(
    place: str,
    name: str,
    limits: dict[str, Any],
    set_limits: Callable[..., Awaitable[None]],
    database_url: str | None,
) -> None:
    """Set limits of a queue, say, by its function of `jobd.limits`, and show what holds then.

    Tells if a queue or kind may be misspelt: limits of one that is yet to come are taken all the same.
    """

    async def work(quotas: Quotas) -> tuple[Any, Strange | None]:
        looks = place in ("queues", "kinds") and limits
        found = await quotas.strange(**{place: [name]}) if looks else None
        await set_limits(quotas, name, limits, by=who())
        (row,) = await getattr(quotas, place)(name)
        return row, found

    row, found = ask(work, database_url)
    if found is not None and found.strange:
        served = getattr(found, place)
        known = f"; known: {', '.join(served[:KNOWN])}" + (" ..." if served[KNOWN:] else "") if served else ""
        note(f"no daemon serves {place.removesuffix('s')} {name!r} so far{known}")
    show(row)


def plain(limits: Any) -> dict[str, Any]:
    """A row as JSON has it, with rates and tolerances as people write them."""
    row = {field.name: getattr(limits, field.name) for field in fields(limits)}
    for name in ("rate", "key_rate"):
        if row.get(name) is not None:
            row[name] = str(row[name])
    if row.get("delay_tolerance") is not None:
        row["delay_tolerance"] = format_duration(row["delay_tolerance"])
    return row


def otherwise(limits: Any) -> str:
    """What code and files say of the limits that are others now: those were set at run time."""
    row = plain(limits)
    return ", ".join(f"{name} {said}" for name, said in sorted(limits.declared.items()) if row[name] != said)


def back_to_declared(place: str, what: str, name: str, database_url: str | None) -> None:
    """Take back what was set at run time, and show what holds; exits with 1 where nothing is known of it."""

    async def back(quotas: Quotas) -> list[Any]:
        found = await quotas.reset_limits(place, name, by=who())
        return await getattr(quotas, place)(name) if found else []

    rows = ask(back, database_url)
    if not rows:
        note(f"nothing was ever said of {what} {name}")
        raise typer.Exit(1)
    show(rows[0])


def show(limits: Any) -> None:
    """Print what holds, and what code and files say."""
    told = ", ".join(f"{name} {said}" for name, said in sorted(limits.declared.items()))
    row = {
        name: local(value) if isinstance(value, datetime) else value for name, value in plain(limits).items()
    }
    print_fields((row | {"declared": told}).items())


def of(running: int, limit: int | None) -> str:
    """How many run, and of how many that may."""
    return str(running) if limit is None else f"{running} of {limit}"


def rate_text(rate: object, burst: int | None) -> str:
    """A rate with its burst; empty without."""
    if rate is None:
        return ""
    return str(rate) if burst is None else f"{rate}, {burst} at once"
