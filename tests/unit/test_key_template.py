"""Templates of concurrency keys: what they read, what they make of a payload, what they refuse."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime
from typing import Any, TypedDict
from uuid import UUID

import pydantic
import pytest

from jobd import Jobs
from jobd.context import JobContext
from jobd.errors import ConfigError, HandlerError, PayloadError
from jobd.key_template import KeyTemplate


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Order:
    user_id: int


class Model(pydantic.BaseModel):
    user_id: int = pydantic.Field(alias="userId")


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Typed(TypedDict):
    user_id: int


def rendered(text: str, payload: Any, queue: str = "mail", tenant_id: str | None = "t1") -> str:
    return KeyTemplate("sync", text).rendered(payload, queue, tenant_id)


@pytest.mark.parametrize(
    ("text", "payload", "key"),
    [
        ("user:{user_id}", {"user_id": 7}, "user:7"),
        ("{user_id}", {"user_id": "ann"}, "ann"),
        ("{order.user.id}!", {"order": {"user": {"id": 7}}}, "7!"),
        ("{order.user_id}", {"order": Order(7)}, "7"),
        ("{queue}/{tenant_id}", {}, "mail/t1"),
        ("{payload.tenant_id}", {"tenant_id": "theirs"}, "theirs"),
        ("{{{user_id}}}", {"user_id": 7}, "{7}"),
        ("everything", {}, "everything"),
        ("{flag}{half}", {"flag": True, "half": 0.5}, "true0.5"),
        ("{id}", {"id": UUID(int=7)}, str(UUID(int=7))),
        ("{day}", {"day": date(2027, 3, 1)}, "2027-03-01"),
        ("{at}", {"at": datetime(2027, 3, 1, tzinfo=UTC)}, "2027-03-01T00:00:00Z"),
        ("{colour}", {"colour": Colour.RED}, "red"),
        ("{empty}x", {"empty": ""}, "x"),
    ],
)
def test_a_key_is_made_of_the_jobs_own_values(text: str, payload: Any, key: str):
    assert rendered(text, payload) == key


def test_a_job_without_a_tenant_has_an_empty_one_in_its_key():
    assert rendered("t:{tenant_id}", {}, tenant_id=None) == "t:"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            {},
            r"^payload \$\.user_id: is missing; concurrency_key = 'user:\{user_id\}' of handler 'sync'",
        ),
        ({"user_id": None}, r"^payload \$\.user_id: is null; .*or give concurrency_key with the enqueue"),
        ({"user_id": [7]}, r"^payload \$\.user_id: is an array"),
        ([7], r"^payload \$\.user_id: is missing"),
        ({"user_id": "x" * 500}, r"makes a concurrency key of 505 characters of 'user:\{user_id\}'"),
    ],
)
def test_a_payload_that_gives_no_key_is_refused(payload: Any, message: str):
    with pytest.raises(PayloadError, match=message):
        rendered("user:{user_id}", payload)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' must be a text"),
        (7, "7 must be a text, like 'user:{user_id}'"),
        ("user:{", "cannot be read: .*; a brace itself is written {{ or }}"),
        ("{user_id!r}", r"formats \{user_id\}; a field is a name alone"),
        ("{n:03}", r"formats \{n\}"),
        ("{}", r"has a field \{\}; a field is a name, like \{user_id\} or \{order\.user_id\}"),
        ("{users[0]}", r"has a field \{users\[0\]\}"),
        ("{payload}", r"has a field \{payload\}"),
        ("x" * 501, "must be at most 500 characters long"),
        ("a\0", "must not contain NUL"),
    ],
)
def test_what_cannot_be_read_is_refused_at_the_declaration(text: Any, message: str):
    with pytest.raises(HandlerError, match=f"^handler 'sync': concurrency_key = .*{message}"):
        Jobs().handler("sync", concurrency_key=text)(lambda user_id: None)


async def by_keys(user_id: int, ctx: JobContext) -> None: ...
async def by_order(order: Order) -> None: ...
async def by_model(payload: Model) -> None: ...
async def by_typed(payload: Typed) -> None: ...
async def by_dict(payload: dict[str, Any]) -> None: ...
async def by_open(payload: Open) -> None: ...
async def by_rest(**rest: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "there"),
    [
        (by_keys, r"did you mean \{user_id\}\?"),
        (by_typed, r"did you mean \{user_id\}\?"),
        (by_model, r"did you mean \{userId\}\?"),
    ],
)
def test_a_field_that_the_handler_does_not_take_is_refused_at_the_declaration(function: Any, there: str):
    with pytest.raises(
        HandlerError, match=rf"has a field \{{usr_id\}} that the handler does not take; {there}"
    ):
        Jobs().handler("sync", concurrency_key="user:{usr_id}")(function)


def test_where_more_resources_may_come_it_is_refused_when_the_daemon_starts():
    jobs = Jobs()
    jobs.handler("sync", concurrency_key="user:{usr_id}")(by_order)
    with pytest.raises(HandlerError, match=r"has a field \{usr_id\} that the handler does not take"):
        jobs.check_handlers()


@pytest.mark.parametrize("function", [by_dict, by_open, by_rest])
def test_a_handler_that_takes_any_keys_takes_any_field(function: Any):
    jobs = Jobs()
    jobs.handler("sync", concurrency_key="user:{user_id}")(function)
    jobs.check_handlers()


@pytest.mark.parametrize("name", ["tenant_id", "queue", "user_id", "payload.user_id"])
def test_what_the_handler_takes_and_what_every_job_has_can_be_named(name: str):
    jobs = Jobs()
    jobs.handler("sync", concurrency_key=f"x:{{{name}}}")(by_keys)
    jobs.check_handlers()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"key_limit": 0}, r"^key_limit of handler 'sync' = 0: must be a whole number from 1"),
        ({"key_rate": "fast"}, r"^key_rate of handler 'sync' = 'fast': is not a rate"),
        ({"ordered": 1}, r"^ordered of handler 'sync' = 1: must be True or False"),
        ({"key_burst": 2}, r"^key_burst of handler 'sync' = 2: belongs to a key_rate; set both"),
        (
            {"ordered": True, "key_limit": 2},
            r"^key_limit of handler 'sync' = 2: jobs of a key that run in order",
        ),
    ],
)
def test_bad_limits_of_a_key_are_refused_at_the_declaration(limits: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Jobs().handler("sync", concurrency_key="a", **limits)(by_keys)
