"""Payloads meeting parameters: what each of them gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from jobd.binding import Binding
from jobd.errors import HandlerError, PayloadError
from jobd.registry import Registry
from tests.unit.parameters import CONTEXT, Cat, Dog, Image, JobContext, Mailer, Server

if TYPE_CHECKING:
    from decimal import Context as Cache
    from decimal import Decimal as Unknown


class Point(TypedDict):
    x: int
    y: NotRequired[int]


class Colour(StrEnum):
    RED = "red"


Count = NewType("Count", int)
MAILER = Mailer()


def bound(
    function: Callable[..., Any], payload: Any, resources: dict[type, Any] | None = None
) -> dict[str, Any]:
    """What the function would be called with, by way of JSON."""
    binding = Binding("it", function)
    args, kwargs = binding.bind(CONTEXT, json.loads(json.dumps(payload)), resources or {})
    assert args == ()
    return kwargs


def refused(function: Callable[..., Any], payload: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        bound(function, payload)
    return caught.value


def test_a_handler_without_parameters_takes_nothing() -> None:
    async def it() -> None: ...

    assert bound(it, {}) == {}
    assert bound(it, None) == {}
    assert "unexpected key; handler 'it' takes no keys" in str(refused(it, {"n": 1}))


def test_keys_become_keywords_and_defaults_are_honoured() -> None:
    async def it(a: int, b: str = "b", *, c: float = 0.5) -> None: ...

    assert bound(it, {"a": 1}) == {"a": 1}
    assert bound(it, {"a": 1, "c": 2.5, "b": "x"}) == {"a": 1, "b": "x", "c": 2.5}


def test_unannotated_parameters_take_any_value() -> None:
    async def it(a, b=None): ...

    assert bound(it, {"a": [None, {"x": 1}], "b": "y"}) == {"a": [None, {"x": 1}], "b": "y"}


def test_the_context_is_known_by_annotation_text_or_name() -> None:
    async def typed(it: JobContext, n: int) -> None: ...
    async def optional(it: JobContext | None, n: int) -> None: ...
    async def annotated(it: Annotated[JobContext, "the run"], n: int) -> None: ...
    async def bare(ctx, n: int): ...
    def in_a_thread(n: int, it: JobContext) -> None: ...

    for function in (typed, optional, annotated, bare, in_a_thread):
        kwargs = bound(function, {"n": 1})
        assert kwargs.pop("n") == 1
        assert list(kwargs.values()) == [CONTEXT]


def test_a_context_imported_for_type_checkers_only_is_known_by_its_text() -> None:
    scope: dict[str, Any] = {}
    exec("async def it(run: 'jobd.JobContext', other: 'JobContext | None', n: int): ...", scope)
    assert bound(scope["it"], {"n": 1}) == {"run": CONTEXT, "other": CONTEXT, "n": 1}


def test_an_annotated_ctx_is_a_key_like_others() -> None:
    async def it(ctx: str) -> None: ...

    assert bound(it, {"ctx": "x"}) == {"ctx": "x"}


def test_resources_are_injected_by_type() -> None:
    async def it(mailer: Mailer, n: int, spare: Mailer | None = None) -> None: ...

    assert bound(it, {"n": 1}, {Mailer: MAILER}) == {"n": 1, "mailer": MAILER, "spare": MAILER}


def test_a_resource_that_is_not_registered_leaves_the_default() -> None:
    async def it(n: int, spare: Mailer | None = None) -> None: ...

    assert bound(it, {"n": 1}) == {"n": 1}
    assert refused(it, {"n": 1, "spare": {}}).path == "$.spare"


def test_a_resource_without_registration_or_default_is_a_handler_error() -> None:
    async def it(n: int, mailer: Mailer) -> None: ...

    with pytest.raises(
        HandlerError, match="handler 'it': nothing can be passed as 'mailer': Mailer is neither"
    ):
        bound(it, {"n": 1})


def test_a_resource_registered_later_is_noticed() -> None:
    async def it(server: Server) -> None: ...

    binding = Binding("it", it)
    assert binding.bind(CONTEXT, {"host": "a"}, {}) == ((), {"server": Server("a")})
    server = Server("b")
    assert binding.bind(CONTEXT, {}, {Server: server}) == ((), {"server": server})


def test_a_payload_cannot_reach_what_jobd_fills() -> None:
    async def it(ctx: JobContext, mailer: Mailer, **rest: Any) -> None: ...

    binding = Binding("it", it)
    for name in ("ctx", "mailer"):
        with pytest.raises(PayloadError, match="unexpected key"):
            binding.bind(CONTEXT, {name: 1}, {Mailer: MAILER})
    args, kwargs = binding.bind(CONTEXT, {"rest": 1, "x": 2}, {Mailer: MAILER})
    assert (args, kwargs) == ((), {"ctx": CONTEXT, "mailer": MAILER, "rest": 1, "x": 2})


def test_a_resource_imported_for_type_checkers_only_is_known_by_its_name() -> None:
    async def it(cache: Cache, n: int) -> None: ...

    class Elsewhere:
        pass

    Elsewhere.__name__ = "Cache"
    cache = Elsewhere()
    assert bound(it, {"n": 1}, {Elsewhere: cache}) == {"cache": cache, "n": 1}


def test_rest_takes_the_keys_that_nothing_else_took() -> None:
    async def it(n: int, **rest: int) -> None: ...

    assert bound(it, {"n": 1, "a": 2, "b": "3"}) == {"n": 1, "a": 2, "b": 3}
    assert refused(it, {"n": 1, "a": "x"}).path == "$.a"


@pytest.mark.parametrize("payload", [{"a": 1}, [1, 2], "text", 7, None])
def test_a_lone_unannotated_payload_is_the_whole_payload(payload: Any) -> None:
    async def it(ctx, payload): ...

    assert bound(it, payload) == {"ctx": CONTEXT, "payload": payload}


def test_a_lone_payload_is_validated_whole() -> None:
    async def it(payload: list[int]) -> None: ...

    assert bound(it, [1, 2]) == {"payload": [1, 2]}
    assert refused(it, [1, "x"]).path == "$[1]"


def test_payload_beside_another_parameter_is_a_key() -> None:
    async def it(payload: dict[str, Any], n: int) -> None: ...

    assert bound(it, {"payload": {"a": 1}, "n": 1}) == {"payload": {"a": 1}, "n": 1}


def test_a_lone_model_dataclass_dict_or_typed_dict_takes_the_whole_payload() -> None:
    async def model(image: Image) -> None: ...
    async def optional(image: Optional[Image]) -> None: ...  # noqa: UP045
    async def data(server: Server) -> None: ...
    async def typed(point: Point) -> None: ...
    async def plain(values: dict) -> None: ...
    async def numbers(values: dict[str, int]) -> None: ...
    async def either(pet: Annotated[Cat | Dog, Field(discriminator="type")]) -> None: ...
    async def either_too(pet: Union[Cat, Dog]) -> None: ...  # noqa: UP007

    assert bound(model, {"key": "a"}) == {"image": Image(key="a")}
    assert bound(optional, None) == {"image": None}
    assert bound(data, {"host": "a"}) == {"server": Server("a")}
    assert bound(typed, {"x": 1, "y": "2"}) == {"point": {"x": 1, "y": 2}}
    assert bound(typed, {"x": 1}) == {"point": {"x": 1}}
    assert bound(plain, {"x": None}) == {"values": {"x": None}}
    assert bound(numbers, {"x": "1"}) == {"values": {"x": 1}}
    assert bound(either, {"type": "dog", "name": "Rex"}) == {"pet": Dog(type="dog", name="Rex")}
    assert bound(either_too, {"type": "cat", "lives": 9}) == {"pet": Cat(type="cat", lives=9)}


def test_a_lone_scalar_or_list_is_a_key() -> None:
    async def it(items: list[int]) -> None: ...

    assert bound(it, {"items": [1]}) == {"items": [1]}
    assert str(refused(it, [1])) == (
        "payload $: expected an object, got an array of 1 item; handler 'it' takes the keys items"
    )


def test_annotations_turn_json_into_their_types() -> None:
    async def it(
        at: datetime, who: UUID, price: Decimal, colour: Colour, tags: set[str], mode: Literal["a", "b"],
        image: Image, maybe: int | None, either: int | str, count: Count, wide: float,
        limited: Annotated[int, Field(le=9)],
    ) -> None: ...  # fmt: skip

    who = UUID("0190163d-8694-739b-aea5-966c26f8ad91")
    assert bound(
        it,
        {
            "at": "2026-01-02T03:04:05Z", "who": str(who), "price": "1.10", "colour": "red", "tags": ["x"],
            "mode": "a", "image": {"key": "k"}, "maybe": None, "either": "1", "count": 3,
            "wide": 1, "limited": 9,
        },
    ) == {
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "who": who, "price": Decimal("1.10"),
        "colour": Colour.RED, "tags": {"x"}, "mode": "a", "image": Image(key="k"), "maybe": None,
        "either": "1", "count": 3, "wide": 1.0, "limited": 9,
    }  # fmt: skip


def test_a_strict_model_takes_what_json_can_say() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        at: datetime
        n: int

    async def it(payload: Strict) -> None: ...

    assert bound(it, {"at": "2026-01-02T03:04:05Z", "n": 1})["payload"].n == 1
    assert refused(it, {"at": "2026-01-02T03:04:05Z", "n": "1"}).path == "$.n"


def test_types_declared_inside_a_function_are_found() -> None:
    class Local(BaseModel):
        n: int

    async def it(payload: Local, ctx: JobContext) -> None: ...
    async def listed(items: list[Local]) -> None: ...

    assert bound(it, {"n": 1}) == {"payload": Local(n=1), "ctx": CONTEXT}
    assert bound(listed, {"items": [{"n": 1}]}) == {"items": [Local(n=1)]}


def test_types_declared_inside_a_function_are_found_through_the_decorator() -> None:
    class Local(BaseModel):
        n: int

    registry = Registry()

    @registry.handler()
    async def it(payload: Local) -> None: ...

    handler = registry.get("it")
    assert handler is not None
    assert handler.bind(CONTEXT, {"n": 1}, {}) == ((), {"payload": Local(n=1)})


def test_a_type_declared_after_the_handler_is_found_at_first_use() -> None:
    scope: dict[str, Any] = {"BaseModel": BaseModel}
    exec("async def it(payload: 'Later'): ...", scope)
    binding = Binding("it", scope["it"])
    exec("class Later(BaseModel):\n    n: int", scope)
    assert binding.bind(CONTEXT, {"n": 1}, {})[1]["payload"].n == 1


def test_an_annotation_that_cannot_be_resolved_names_the_parameter() -> None:
    async def it(n: int, thing: Unknown) -> None: ...

    with pytest.raises(
        HandlerError, match=r"handler 'it': the annotation of parameter 'thing' cannot be resolved"
    ):
        bound(it, {"n": 1, "thing": 1})


def test_an_unfinished_model_is_a_handler_error() -> None:
    scope: dict[str, Any] = {"BaseModel": BaseModel, "__name__": "shop"}
    exec("class Open(BaseModel):\n    it: 'Missing'\nasync def it(payload: Open): ...", scope)
    with pytest.raises(HandlerError, match="nothing can be passed as 'payload': Open is neither"):
        bound(scope["it"], {"it": 1})


def test_a_default_stands_in_for_no_payload_at_all() -> None:
    async def it(payload: dict[str, Any] = {}) -> None: ...  # noqa: B006

    assert bound(it, None) == {}
    assert bound(it, {"a": 1}) == {"payload": {"a": 1}}
