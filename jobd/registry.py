"""Which function runs which kind of job, and under which rules.

A registry is filled while the application's modules are imported and only read afterwards. It
neither runs handlers (the engine does) nor knows where jobs are stored.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Unpack, overload

from jobd.backoff import Backoff
from jobd.binding import Binding
from jobd.duration import parse_duration
from jobd.errors import ConfigError, HandlerError
from jobd.key_template import KeyTemplate
from jobd.quota_options import KindOptions, kind_limits
from jobd.signature import function_remedy, is_importable, process_remedy

Function = TypeVar("Function", bound=Callable[..., Any])
RunsIn = Literal["loop", "thread", "process"]
CallNext = Callable[[], Awaitable[Any]]
Middleware = Callable[[Any, CallNext], Awaitable[Any]]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,99}")


@dataclass(frozen=True, eq=False, slots=True)
class Handler:
    """One kind of job: the function, where it runs, and its rules; None leaves a rule to the settings."""

    kind: str
    function: Callable[..., Any]
    queue: str
    max_attempts: int | None
    backoff: Backoff | None
    timeout: timedelta | None
    concurrency: int | None
    runs_in: RunsIn
    binding: Binding
    # The key that its jobs get, and what is declared of each key: see quota_options.
    concurrency_key: KeyTemplate | None = None
    key_limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keyed(self) -> bool:
        """Whether its jobs have a key, as far as the declaration tells."""
        return self.concurrency_key is not None or bool(self.key_limits)

    @property
    def task_name(self) -> str:
        """What the tasks that run it are called."""
        return self.binding.task_name

    def takes_context(self, resources: Mapping[type, Any]) -> bool:
        """Whether it wants to be given its run's context. Raises HandlerError, as `bind` does."""
        return self.binding.takes_context(resources)

    def prepare(self, resource_types: Collection[type]) -> None:
        """Raise the HandlerError that the first run would: call it when all modules are imported."""
        self.binding.prepare(resource_types)
        self._check_key(resource_types, all_known=True)
        if self.runs_in == "process" and not is_importable(self.function):
            raise HandlerError(
                f"handler {self.kind!r} runs in a process, but {self.function.__module__}."
                f"{self.function.__qualname__} is something else by now (a decorator above jobs.handler?); "
                "put jobs.handler on top"
            )

    def _check_key(self, resource_types: Collection[type], *, all_known: bool) -> None:
        if self.concurrency_key is not None:
            known = self.binding.payload_keys(resource_types, all_known=all_known)
            if known is not None:
                self.concurrency_key.check(known)

    def bind(
        self, ctx: Any, payload: Any, resources: Mapping[type, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for one run, from a decoded payload. Raises PayloadError, HandlerError."""
        return self.binding.bind(ctx, payload, resources)

    def check(self, payload: Any, resource_types: Collection[type] = (), *, all_known: bool = False) -> None:
        """Raise a PayloadError where a run could not take this payload; see Binding.check."""
        self.binding.check(payload, resource_types, all_known=all_known)


class Registry:
    """Handlers by kind, and the middleware around them."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._middleware: list[Middleware] = []

    @overload
    def handler(self, kind: Function, /) -> Function: ...

    @overload
    def handler(
        self,
        kind: str | None = None,
        *,
        queue: str = "default",
        max_attempts: int | None = None,
        backoff: Backoff | str | Mapping[str, Any] | Callable[[int], timedelta | float] | None = None,
        timeout: str | int | float | timedelta | None = None,
        concurrency: int | None = None,
        run_in: Literal["thread", "process"] | None = None,
        concurrency_key: str | None = None,
        **key_limits: Unpack[KindOptions],
    ) -> Callable[[Function], Function]: ...

    def handler(self, kind: Any = None, **rules: Any) -> Any:
        """Declare a function to be the handler of a kind of job; the function itself comes back, untouched.

        The kind is the function's name unless said. A coroutine function runs on the loop, a plain
        one in a thread, or with `run_in="process"` in a process. `concurrency_key` is a template, like
        `user:{user_id}`, of the key that each job gets unless its enqueue gives one; `key_limit`, `ordered`,
        `key_rate` and `key_burst` say what holds for each key. Raises HandlerError, ConfigError.
        """
        if callable(kind):
            self.add(kind, **rules)
            return kind

        def declare(function: Function) -> Function:
            self.add(function, kind, **rules)
            return function

        return declare

    def add(
        self,
        function: Callable[..., Any],
        kind: str | None = None,
        *,
        queue: str = "default",
        max_attempts: int | None = None,
        backoff: Backoff | str | Mapping[str, Any] | Callable[[int], timedelta | float] | None = None,
        timeout: str | int | float | timedelta | None = None,
        concurrency: int | None = None,
        run_in: Literal["thread", "process"] | None = None,
        concurrency_key: str | None = None,
        **key_limits: Unpack[KindOptions],
    ) -> Handler:
        """What `handler` does, as a call; returns the handler."""
        if remedy := function_remedy(function):
            raise HandlerError(f"handler {kind or _name_of(function)!r}: {_where(function)} {remedy}")
        kind = check_name("kind", _kind_of(function) if kind is None else kind)
        if (holder := self._handlers.get(kind)) is not None:
            raise HandlerError(
                f"kind {kind!r} already has a handler, {_where(holder.function)}; "
                f"give {_where(function)} another kind"
            )
        for option in key_limits.keys() - KindOptions.__annotations__.keys():
            raise _unknown(option)
        limits = kind_limits(key_limits, setting=f"{{}} of handler {kind!r}")
        if limits.get("key_burst") is not None and limits.get("key_rate") is None:
            remedy = "belongs to a key_rate; set both"
            raise ConfigError(f"key_burst of handler {kind!r}", limits["key_burst"], remedy)
        runs_in = _runs_in(kind, function, run_in)
        handler = Handler(
            kind=kind,
            function=function,
            queue=check_name("queue", queue),
            max_attempts=_positive(kind, "max_attempts", max_attempts),
            backoff=None if backoff is None else Backoff.of(backoff),
            timeout=_timeout(kind, timeout),
            concurrency=_positive(kind, "concurrency", concurrency),
            runs_in=runs_in,
            binding=Binding(kind, function, crosses_processes=runs_in == "process"),
            concurrency_key=None if concurrency_key is None else KeyTemplate(kind, concurrency_key),
            # One that is None is not said.
            key_limits={name: limit for name, limit in limits.items() if limit is not None},
        )
        handler._check_key((), all_known=False)
        self._handlers[kind] = handler
        return handler

    def middleware(self, function: Middleware) -> Middleware:
        """Put `async def name(ctx, call_next)` around every run; the first declared is the outermost.

        It has to `return await call_next()`; what it raises is what the run raised.
        """
        if not inspect.iscoroutinefunction(function):
            raise HandlerError(
                f"middleware {_where(function)} is no coroutine function; "
                "write it as `async def name(ctx, call_next): return await call_next()`"
            )
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise HandlerError(
                f"middleware {_where(function)} has to take (ctx, call_next): {error}"
            ) from error
        self._middleware.append(function)
        return function

    @property
    def middlewares(self) -> tuple[Middleware, ...]:
        """Outermost first."""
        return tuple(self._middleware)

    def get(self, kind: str) -> Handler | None:
        return self._handlers.get(kind)

    def of(self, function: Callable[..., Any]) -> Handler | None:
        """The handler that a function was declared for. Raises HandlerError where it has several kinds."""
        found = [handler for handler in self if handler.function == function]
        if len(found) > 1:
            kinds = ", ".join(repr(handler.kind) for handler in found)
            raise HandlerError(f"{_where(function)} handles several kinds: {kinds}; enqueue by kind")
        return found[0] if found else None

    def kinds(self) -> tuple[str, ...]:
        """In the order of declaration."""
        return tuple(self._handlers)

    def queues(self) -> tuple[str, ...]:
        """The handlers' queues, sorted."""
        return tuple(sorted({handler.queue for handler in self}))

    def prepare(self, resource_types: Collection[type]) -> None:
        """Raise the first HandlerError that some handler's first run would."""
        for handler in self:
            handler.prepare(resource_types)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, kind: object) -> bool:
        return kind in self._handlers


def check_name(what: str, name: object) -> str:
    """A kind's or queue's name, or HandlerError with the rule."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise HandlerError(
        f"{what} {str(name)[:120]!r} is no valid name: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -, "
        "the first one a letter or _"
    )


def _unknown(option: str) -> TypeError:
    """What Python would raise for a parameter that does not exist."""
    known = [
        name
        for name, rule in inspect.signature(Registry.add).parameters.items()
        if rule.kind is rule.KEYWORD_ONLY
    ]
    close = get_close_matches(option, [*known, *KindOptions.__annotations__], n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return TypeError(f"handler() got an unexpected keyword argument {option!r}{hint}")


def _kind_of(function: Callable[..., Any]) -> str:
    name = _name_of(function)
    if name in ("", "<lambda>"):
        raise HandlerError(f"{_where(function)} has no name to be its kind; say jobs.handler('kind')(...)")
    return name


def _name_of(function: object) -> str:
    return str(getattr(function, "__name__", ""))


def _runs_in(kind: str, function: Callable[..., Any], run_in: str | None) -> RunsIn:
    match run_in:
        case None:
            return "loop" if inspect.iscoroutinefunction(function) else "thread"
        case "thread" if not inspect.iscoroutinefunction(function):
            return "thread"
        case "thread":
            raise HandlerError(
                f"handler {kind!r}: {_where(function)} is a coroutine function, which runs on the loop; "
                "leave run_in out, or write it as a plain `def`"
            )
        case "process":
            if remedy := process_remedy(function):
                raise HandlerError(f"handler {kind!r} cannot run in a process: {_where(function)} {remedy}")
            return "process"
    raise HandlerError(f"handler {kind!r}: run_in = {run_in!r} is neither 'thread' nor 'process'")


def _positive(kind: str, rule: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise HandlerError(f"handler {kind!r}: {rule} = {value!r} has to be a whole number of at least 1")


def _timeout(kind: str, value: str | int | float | timedelta | None) -> timedelta | None:
    if value is None:
        return None
    timeout = parse_duration(value, setting=f"timeout of handler {kind!r}")
    if timeout <= timedelta(0):
        raise HandlerError(f"handler {kind!r}: timeout = {value!r} has to be longer than nothing")
    return timeout


def _where(function: object) -> str:
    name = getattr(function, "__qualname__", None) or repr(function)[:100]
    return f"{getattr(function, '__module__', '?')}.{name}"
