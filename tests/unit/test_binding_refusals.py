"""Payloads that do not fit: what the refusal says, and what is seen before a job is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from jobd.binding import Binding, dumped
from jobd.errors import PayloadError
from jobd.payload import encode_payload
from jobd.registry import Registry
from tests.unit.parameters import CONTEXT, Cat, Dog, Image, JobContext, Mailer, Server

if TYPE_CHECKING:
    from decimal import Context as Cache


def refused(function: Callable[..., Any], payload: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        Binding("it", function).bind(CONTEXT, json.loads(json.dumps(payload)), {})
    return caught.value


def test_a_missing_key_says_what_is_expected() -> None:
    async def it(n: int, image: Image) -> None: ...

    error = refused(it, {"image": {"key": "a"}})
    assert (error.path, error.problem) == ("$.n", "missing, expected an integer")
    assert error.remedy == "handler 'it' takes the keys image, n"
    assert refused(it, {"n": 1}).problem == "missing, expected Image"

    async def unhashable(n: Annotated[int, []]) -> None: ...

    assert "missing, expected" in refused(unhashable, {}).problem


def test_an_unexpected_key_suggests_the_near_one() -> None:
    async def it(width: int = 1) -> None: ...

    error = refused(it, {"widht": 2})
    assert error.path == "$.widht"
    assert error.remedy.startswith("did you mean 'width'? ")


def test_every_wrong_place_is_named() -> None:
    async def it(a: int, b: str, c: int) -> None: ...

    assert str(refused(it, {"a": [], "b": 1, "d": 4})) == (
        "payload $.a: should be a valid integer, got an array of 0 items; "
        "$.b: should be a valid string, got an integer; $.d: unexpected key; "
        "$.c: missing, expected an integer; handler 'it' takes the keys a, b, c"
    )


def test_paths_lead_into_the_payload() -> None:
    class Order(BaseModel):
        items: list[Image | Server]
        extra: dict[str, int] = {}

    async def it(payload: Order) -> None: ...
    async def keyword(order: Order, n: int) -> None: ...

    assert refused(it, {"items": [{"key": "a"}, {"key": "a", "width": 0}]}).path.startswith("$.items[1]")
    assert refused(it, {}).path == "$.items"
    assert refused(it, {"items": [], "extra": {"a b": "x"}}).path == '$.extra["a b"]'
    assert refused(keyword, {"order": {"items": 7}, "n": 1}).path == "$.order.items"


def test_members_of_a_union_complain_once_about_one_place() -> None:
    async def it(n: int | bool) -> None: ...

    error = refused(it, {"n": []})
    assert error.path == "$.n"
    assert error.problem == "should be a valid integer or should be a valid boolean, got an array of 0 items"


def test_values_are_never_quoted() -> None:
    class Login(BaseModel):
        password: str

        @field_validator("password")
        @classmethod
        def strong(cls, value: str) -> str:
            raise ValueError(f"{value} is too weak")

    async def number(n: int) -> None: ...
    async def login(payload: Login) -> None: ...
    async def pet(pet: Annotated[Cat | Dog, Field(discriminator="type")]) -> None: ...
    async def none() -> None: ...

    secret = "hunter2 hunter2"
    assert "hunter2" not in str(refused(number, {"n": secret}))
    assert "hunter2" not in str(refused(number, secret))
    assert "… is too weak" in str(refused(login, {"password": secret}))
    assert "hunter2" not in str(refused(pet, {"type": secret}))
    assert len(str(refused(none, {"k" * 5000: 1}))) < 300
    assert len(str(refused(none, {f"key{n}": n for n in range(5000)}))) < 300


def check(function: Callable[..., Any], payload: Any, *types: type, all_known: bool = False) -> None:
    Binding("it", function).check(payload, types, all_known=all_known)


def test_check_refuses_early_what_the_run_would_refuse() -> None:
    async def it(ctx: JobContext, n: int) -> None: ...

    check(it, {"n": 1})
    with pytest.raises(PayloadError, match=r"\$\.n: missing"):
        check(it, {})


def test_check_takes_models_and_python_values_before_they_are_stored() -> None:
    async def whole(payload: Image) -> None: ...
    async def keys(key: str, width: int) -> None: ...
    async def plain(payload: dict[str, Any]) -> None: ...
    async def at(at: datetime, who: str) -> None: ...

    image = Image(key="a")
    check(whole, image)
    check(keys, image)
    check(plain, image)
    check(at, {"at": datetime(2026, 1, 2, tzinfo=UTC), "who": UUID(int=0)})
    with pytest.raises(PayloadError):
        check(keys, Server("a"))


def test_check_leaves_to_the_run_what_resources_not_yet_known_decide() -> None:
    async def lone(server: Server) -> None: ...
    async def pair(image: Image, server: Server) -> None: ...
    async def mail(payload: Image, mailer: Mailer) -> None: ...
    async def by_name(cache: Cache, n: int) -> None: ...

    check(lone, {})
    check(pair, {"key": "a"})
    check(by_name, {"n": 1})
    with pytest.raises(PayloadError, match=r"\$\.key: missing"):
        check(mail, {})  # a Mailer cannot be a payload, so it has to be a resource
    with pytest.raises(PayloadError, match=r"\$\.host: missing"):
        check(lone, {}, all_known=True)
    check(pair, {"key": "a"}, Server)
    with pytest.raises(PayloadError, match=r"\$\.key: missing"):
        check(pair, {}, Server, all_known=True)


def test_what_is_stored_of_a_model_fits_it_again() -> None:
    class Shape(BaseModel):
        model_config = ConfigDict(extra="forbid")
        side: int = Field(alias="theSide")
        at: datetime

        @computed_field
        def area(self) -> int:
            return self.side**2

    async def it(payload: Shape) -> None: ...

    registry = Registry()
    handler = registry.add(it)
    shape = Shape(theSide=3, at=datetime(2026, 1, 2, tzinfo=UTC))
    handler.check(shape)
    text = encode_payload(dumped(shape))
    assert json.loads(text) == {"theSide": 3, "at": "2026-01-02T00:00:00Z"}
    assert handler.bind(CONTEXT, json.loads(text), {}) == ((), {"payload": shape})


def test_plain_types_do_not_import_pydantic() -> None:
    program = (
        "import sys\n"
        "from jobd.registry import Registry\n"
        "def it(ctx, n: int, s: str, f: float | None = None, d: dict = {}): ...\n"
        "handler = Registry().add(it)\n"
        "handler.check({'n': 1, 's': 'x'})\n"
        "handler.bind(None, {'n': 1, 's': 'x', 'f': 0.5, 'd': {}}, {})\n"
        "sys.exit('pydantic' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
