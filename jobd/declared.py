"""The schedules that an application's code declares, by `jobs.cron` and `jobs.every`.

They are put into the database when a daemon with the role `scheduler` starts; `schedules` are those as the
database has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from jobd.binding import dumped
from jobd.errors import HandlerError
from jobd.payload import encode_payload
from jobd.registry import Function, Registry

if TYPE_CHECKING:
    from jobd.schedule_rows import Terms
    from jobd.terms import ScheduleOptions

OWNER = "code"


class DeclaredSchedules:
    """The schedules of the code, each of a handler in `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._terms: dict[str, Terms] = {}

    def owned_by(self, owner: str) -> Sequence[Terms]:
        """What each of them says, in the order of their declarations, as schedules of this owner."""
        return [replace(terms, owner=owner) for terms in self._terms.values()]

    def cron(
        self, when: str, *, id: str | None = None, payload: Any = None, **options: Unpack[ScheduleOptions]
    ) -> Callable[[Function], Function]:
        """Let the handler's job occur as a cron expression says; a plain function becomes a handler, too.

        The schedule is put into the database when a daemon with the role `scheduler` starts, and paused when
        a later version of the application no longer declares it. Its id is the handler's kind unless said.
        Raises ConfigError, HandlerError.
        """

        # Reading expressions takes libraries that most imports of an application can do without.
        from jobd.terms import terms, with_key

        def declare(function: Function) -> Function:
            handler = self._registry.of(function) or self._registry.add(function)
            name = id or handler.kind
            if name in self._terms:
                raise HandlerError(f"there is already a schedule {name!r}; give this one an id of its own")
            queue = options.get("queue")
            given: dict[str, Any] = {**options, "queue": handler.queue if queue is None else queue}
            made = terms(
                name,
                when,
                handler.kind,
                owner=OWNER,
                payload=encode_payload(dumped({} if payload is None else payload)),
                may_be_over=True,
                **given,
            )
            self._terms[name] = with_key(made, handler)
            return function

        return declare

    def every(
        self, interval: str, *, id: str | None = None, payload: Any = None, **options: Unpack[ScheduleOptions]
    ) -> Callable[[Function], Function]:
        """Let the handler's job occur at an interval, like `15m`; see `cron`."""
        return self.cron(f"every {interval}", id=id, payload=payload, **options)
