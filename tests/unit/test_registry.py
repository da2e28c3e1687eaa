"""Declaring handlers: what is kept, what is refused, and in which words."""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from jobd.backoff import Backoff
from jobd.errors import ConfigError, HandlerError, PayloadError
from jobd.registry import Registry


class JobContext:
    __jobd_context__ = True


class Mailer:
    """Stands for a resource: nothing that JSON could become."""


def crunch(n: int) -> int:
    return n * 2


def crunch_with_mailer(n: int, mailer: Mailer) -> None: ...


def replaced(n: int) -> int:
    return n


original, replaced = replaced, crunch


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_handler_returns_the_function_itself(registry: Registry) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    assert registry.handler("add")(add) is add
    assert add(1, 2) == 3


def test_kind_is_the_functions_name_unless_said(registry: Registry) -> None:
    @registry.handler()
    async def resize() -> None: ...

    @registry.handler("images:crop")
    async def crop() -> None: ...

    @registry.handler
    async def bare() -> None: ...

    assert registry.kinds() == ("resize", "images:crop", "bare")
    assert "resize" in registry
    assert len(registry) == 3


def test_rules_are_kept_and_unsaid_ones_are_left_to_the_settings(registry: Registry) -> None:
    @registry.handler(
        "resize", queue="images", max_attempts=5, timeout="30s", concurrency=8, backoff="constant"
    )
    async def resize() -> None: ...

    @registry.handler("noop")
    async def noop() -> None: ...

    handler = registry.get("resize")
    assert handler is not None
    assert handler.function is resize
    assert (handler.queue, handler.max_attempts, handler.concurrency) == ("images", 5, 8)
    assert handler.timeout == timedelta(seconds=30)
    assert handler.backoff == Backoff(kind="constant")
    plain = registry.get("noop")
    assert plain is not None
    assert plain.queue == "default"
    assert (plain.max_attempts, plain.concurrency, plain.timeout, plain.backoff) == (None,) * 4
    assert registry.queues() == ("default", "images")
    assert registry.get("unknown") is None


def test_backoff_may_be_a_callable(registry: Registry) -> None:
    handler = registry.add(crunch, backoff=lambda attempt: attempt * 10.0)
    assert handler.backoff is not None
    assert handler.backoff.function is not None


def test_a_handler_is_found_by_its_function(registry: Registry) -> None:
    handler = registry.add(crunch)
    assert registry.of(crunch) is handler
    assert registry.of(original) is None


def test_a_method_of_an_instance_is_found_by_the_method(registry: Registry) -> None:
    class Shop:
        async def pack(self, order: int) -> None: ...

    shop = Shop()
    handler = registry.add(shop.pack)
    assert handler.kind == "pack"
    assert registry.of(shop.pack) is handler
    assert registry.of(Shop().pack) is None
    assert handler.bind(None, {"order": 1}, {}) == ((), {"order": 1})


def test_a_function_with_two_kinds_is_enqueued_by_kind(registry: Registry) -> None:
    registry.add(crunch, "first")
    registry.add(crunch, "second")
    with pytest.raises(HandlerError, match="'first', 'second'; enqueue by kind"):
        registry.of(crunch)


def test_coroutines_run_on_the_loop_and_plain_functions_in_a_thread_or_process(registry: Registry) -> None:
    async def coroutine() -> None: ...

    assert registry.add(coroutine).runs_in == "loop"
    assert registry.add(crunch, "threaded").runs_in == "thread"
    assert registry.add(crunch, "threaded_too", run_in="thread").runs_in == "thread"
    assert registry.add(crunch, "processed", run_in="process").runs_in == "process"


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("max_attempt", "; did you mean max_attempts?"),
        ("keylimit", "; did you mean key_limit?"),
        ("tags", ""),
    ],
)
def test_an_option_that_does_not_exist_is_named(registry: Registry, option: str, hint: str) -> None:
    words = f"handler() got an unexpected keyword argument {option!r}{hint}"
    with pytest.raises(TypeError, match=f"^{re.escape(words)}$"):
        registry.add(crunch, **{option: 3})  # type: ignore[arg-type]
    assert "crunch" not in registry


def test_a_second_handler_of_a_kind_names_the_first(registry: Registry) -> None:
    registry.add(crunch, "crunch")
    with pytest.raises(
        HandlerError, match=r"kind 'crunch' already has a handler, .*test_registry\.crunch; give"
    ):
        registry.add(original, "crunch")


@pytest.mark.parametrize("name", ["", "1st", "a b", "a/b", "ä", "a" * 101, "a\n", 7])
def test_a_name_outside_the_rule_is_refused_with_the_rule(registry: Registry, name: Any) -> None:
    with pytest.raises(HandlerError, match=r"kind .* use 1 to 100 of the characters"):
        registry.add(crunch, name)
    with pytest.raises(HandlerError, match=r"queue .* the first one a letter or _"):
        registry.add(crunch, queue=name)


@pytest.mark.parametrize("name", ["a", "_a", "images.resize:v2-b", "a" * 100])
def test_a_name_within_the_rule_is_taken(registry: Registry, name: str) -> None:
    assert registry.add(crunch, name, queue=name).kind == name


@pytest.mark.parametrize("rule", ["max_attempts", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_a_count_below_one_is_refused(registry: Registry, rule: str, value: Any) -> None:
    with pytest.raises(HandlerError, match=f"handler 'crunch': {rule} = .* at least 1"):
        registry.add(crunch, **{rule: value})


def test_a_timeout_of_nothing_is_refused(registry: Registry) -> None:
    with pytest.raises(HandlerError, match="timeout = 0 has to be longer than nothing"):
        registry.add(crunch, timeout=0)
    with pytest.raises(ConfigError, match="timeout of handler 'crunch'"):
        registry.add(crunch, timeout="soon")


def test_what_is_refused_is_not_registered(registry: Registry) -> None:
    with pytest.raises(HandlerError):
        registry.add(crunch, max_attempts=0)
    assert registry.kinds() == ()


async def stream() -> AsyncIterator[int]:
    yield 1


def count() -> Iterator[int]:
    yield 1


class Importer:
    def __call__(self) -> None: ...

    def run(self, n: int) -> None: ...


def positional(*numbers: int) -> None: ...
def positional_only(n: int, /) -> None: ...


async def coroutine(n: int) -> None: ...


@functools.wraps(coroutine)
def wrapper(n: int) -> Any:
    return coroutine(n)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (stream, "is a generator"),
        (count, "is a generator"),
        (Importer, "is a class; declare a function"),
        (Importer(), "is of type Importer; declare a function that calls it"),
        (print, "is built in"),
        (positional, "parameter 'numbers' takes positional arguments.*name the parameters"),
        (positional_only, "parameter 'n' is positional-only.*remove the `/`"),
        (Importer.run, "parameter 'self' belongs to a class; register the method of an instance"),
        (wrapper, "write the wrapper as `async def`"),
    ],
)
def test_what_cannot_be_called_by_name_is_refused_with_a_remedy(
    registry: Registry, function: Any, words: str
) -> None:
    with pytest.raises(HandlerError, match=f"handler 'bad': .*{words}"):
        registry.add(function, "bad")


def test_a_pydantic_default_is_refused_with_the_way_to_write_it(registry: Registry) -> None:
    from pydantic import Field

    async def take(n: int = Field(gt=0)) -> None: ...

    with pytest.raises(HandlerError, match=r"parameter 'n' .*Annotated\[type, Field"):
        registry.add(take)


def test_a_lambda_needs_a_kind(registry: Registry) -> None:
    with pytest.raises(HandlerError, match="has no name to be its kind"):
        registry.add(lambda: None)
    assert registry.add(lambda: None, "nothing").runs_in == "thread"


def test_a_partial_is_taken_with_what_it_leaves_open(registry: Registry) -> None:
    async def send(host: str, to: str) -> None: ...

    handler = registry.add(functools.partial(send, host="mail"), "send")
    assert handler.runs_in == "loop"
    assert handler.bind(None, {"to": "a@b.example"}, {}) == ((), {"to": "a@b.example"})


def test_a_wrapped_coroutine_keeps_its_signature(registry: Registry) -> None:
    @functools.wraps(coroutine)
    async def logged(*args: Any, **kwargs: Any) -> None:
        await coroutine(*args, **kwargs)

    handler = registry.add(logged)
    assert handler.bind(None, {"n": 1}, {}) == ((), {"n": 1})
    with pytest.raises(PayloadError):
        handler.bind(None, {"m": 1}, {})


def test_a_coroutine_cannot_be_sent_to_a_thread_or_process(registry: Registry) -> None:
    with pytest.raises(HandlerError, match="runs on the loop; leave run_in out"):
        registry.add(coroutine, run_in="thread")
    with pytest.raises(HandlerError, match="runs on the loop; write it as a plain `def`"):
        registry.add(coroutine, run_in="process")
    with pytest.raises(HandlerError, match="neither 'thread' nor 'process'"):
        registry.add(crunch, run_in="fiber")  # type: ignore[arg-type]


def test_a_process_takes_only_what_it_can_import(registry: Registry) -> None:
    def local(n: int) -> None: ...

    with pytest.raises(HandlerError, match="is declared inside a function; move it to the top of a module"):
        registry.add(local, run_in="process")
    with pytest.raises(HandlerError, match="is a lambda"):
        registry.add(lambda: None, "nothing", run_in="process")
    with pytest.raises(HandlerError, match="is a partial"):
        registry.add(functools.partial(crunch, 1), "part", run_in="process")
    with pytest.raises(HandlerError, match="is a method"):
        registry.add(Importer().run, "run", run_in="process")


def test_a_process_takes_nothing_from_main(registry: Registry) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def task(n: int) -> None: ...", scope)
    with pytest.raises(HandlerError, match="__main__; move it to a module that can be imported"):
        registry.add(scope["task"], run_in="process")


def test_a_process_takes_neither_context_nor_resource(registry: Registry) -> None:
    scope: dict[str, Any] = {"__name__": "shop", "JobContext": JobContext}
    exec("def bare(ctx): ...\ndef typed(it: JobContext): ...\ndef text(it: 'JobContext'): ...", scope)
    for name in ("bare", "typed", "text"):
        with pytest.raises(HandlerError, match=f"handler '{name}' runs in a process, where parameter"):
            registry.add(scope[name], run_in="process")
    handler = registry.add(crunch_with_mailer, run_in="process")
    with pytest.raises(HandlerError, match="parameter 'mailer' cannot follow"):
        handler.prepare({Mailer})


def test_prepare_notices_that_a_process_would_import_something_else(registry: Registry) -> None:
    registry.add(crunch, run_in="process").prepare(())
    assert pickle.loads(pickle.dumps(crunch)) is crunch
    registry.add(original, "changed", run_in="process")
    with pytest.raises(HandlerError, match="something else by now"):
        registry.prepare(())


def test_prepare_raises_what_the_first_run_would(registry: Registry) -> None:
    registry.add(crunch)
    registry.add(crunch_with_mailer)
    registry.prepare([Mailer])
    with pytest.raises(
        HandlerError, match="nothing can be passed as 'mailer': Mailer is neither a registered"
    ):
        registry.prepare([])


def test_middleware_is_kept_outermost_first(registry: Registry) -> None:
    async def outer(ctx: Any, call_next: Any) -> Any:
        return await call_next()

    async def inner(ctx: Any, call_next: Any) -> Any:
        return await call_next()

    assert registry.middleware(outer) is outer
    registry.middleware(inner)
    assert registry.middlewares == (outer, inner)


def test_middleware_has_to_be_a_coroutine_function_of_two(registry: Registry) -> None:
    with pytest.raises(HandlerError, match=r"is no coroutine function; write it as"):
        registry.middleware(lambda ctx, call_next: call_next())

    async def alone(call_next: Any) -> Any: ...

    with pytest.raises(HandlerError, match=r"has to take \(ctx, call_next\)"):
        registry.middleware(alone)  # type: ignore[arg-type]
