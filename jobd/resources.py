"""What handlers are given by type: values made once a process, and what lifespans open once a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from jobd.errors import HandlerError

Lifespan = Callable[[], AsyncIterator[Any]]


class Resources:
    """The resources of an application, one of each type."""

    def __init__(self) -> None:
        self._lifespans: list[Lifespan] = []
        self._given: dict[type, Any] = {}

    def lifespan(self, function: Lifespan) -> Lifespan:
        """Open shared resources once a worker: an async generator function that yields them once.

        What it yields (one object, a tuple of them, or a mapping from type to object) is injected into
        handlers by type; what stands behind the `yield` runs when the worker ends.
        """
        self._lifespans.append(function)
        return function

    def resource(self, type_: type, value: Any) -> None:
        """Give `value` to every handler parameter that is annotated with `type_`."""
        if type_ in self._given:
            raise HandlerError(
                f"there is already a resource of type {type_.__name__}; one per type can be injected"
            )
        self._given[type_] = value

    @property
    def types(self) -> Collection[type]:
        """The types given by `resource`; which ones a lifespan yields is known once it runs."""
        return self._given.keys()

    @property
    def all_known(self) -> bool:
        """Whether `types` are all there will be: no lifespan may yield another."""
        return not self._lifespans

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Mapping[type, Any]]:
        """All resources, for as long as the block lasts."""
        resources = dict(self._given)
        async with AsyncExitStack() as stack:
            for function in self._lifespans:
                yielded = await stack.enter_async_context(asynccontextmanager(function)())
                for type_, value in _by_type(yielded).items():
                    if type_ in resources:
                        raise HandlerError(
                            f"two resources are of type {type_.__name__}; one per type can be injected"
                        )
                    resources[type_] = value
            yield resources


def _by_type(yielded: Any) -> Mapping[type, Any]:
    if yielded is None:
        return {}
    if isinstance(yielded, Mapping):
        return yielded
    if isinstance(yielded, (tuple, list)):
        return {type(value): value for value in yielded}
    return {type(yielded): yielded}
