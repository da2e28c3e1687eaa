"""What an enqueue may say about a job, and how each mistake in it is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.backoff import Backoff
from jobd.errors import ConfigError, HandlerError, JobdError, PayloadError
from jobd.ids import uuid7
from jobd.job import NewJob
from jobd.options import instant, job_id, new_job


def made(**options: Any) -> NewJob:
    defaults: dict[str, Any] = {"id": uuid7(), "payload": "{}", "max_bytes": 1_000, "queue": "default"}
    return new_job("noop", **{**defaults, **options})


def test_nothing_said_is_nothing_decided():
    job = made()
    assert (job.priority, job.deadline_policy, job.queue) == (0, "run", "default")
    undecided = (
        job.run_at,
        job.delay,
        job.delay_tolerance,
        job.max_attempts,
        job.backoff,
        job.timeout,
        job.headers,
    )
    assert set(undecided) == {None}


def test_durations_are_read_in_any_spelling():
    job = made(delay="15m", delay_tolerance=90, timeout=timedelta(seconds=2))
    assert (job.delay, job.delay_tolerance, job.timeout) == (
        timedelta(minutes=15),
        timedelta(seconds=90),
        timedelta(seconds=2),
    )


def test_a_moment_is_taken_to_utc():
    berlin = timezone(timedelta(hours=2))
    job = made(run_at=datetime(2030, 1, 1, 12, tzinfo=berlin))
    assert job.run_at == datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert job.run_at is not None
    assert job.run_at.tzinfo is UTC


def test_a_policy_is_stored_as_json():
    assert made(backoff="constant").backoff == made(backoff=Backoff(kind="constant")).backoff
    job = made(backoff={"kind": "linear", "base": "10s"})
    assert job.backoff is not None
    assert '"kind": "linear"' in job.backoff


def test_tags_and_meta_become_headers():
    assert made(tags=("a", "b"), meta={"n": 1}).headers == '{"tags":["a","b"],"meta":{"n":1}}'
    assert made(tags=["a"]).headers == '{"tags":["a"]}'


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"run_at": datetime(2030, 1, 1)}, r"run_at = .*: must be a datetime with a time zone"),
        ({"run_at": date(2030, 1, 1)}, "must be a datetime with a time zone"),
        ({"run_at": "2030-01-01T00:00:00Z"}, "must be a datetime with a time zone"),
        ({"run_at": datetime.max.replace(tzinfo=UTC)}, "years 2 to 9000"),
        ({"run_at": datetime.min.replace(tzinfo=UTC)}, "years 2 to 9000"),
        ({"run_at": datetime.now(UTC), "delay": 5}, "delay = 5: means the same as run_at"),
        ({"delay": "-5s"}, "delay = '-5s'"),
        ({"delay": "soon"}, "delay = 'soon': is not a duration"),
        ({"priority": 2**31}, "priority = 2147483648: must be a whole number from -2147483648 to 2147483647"),
        ({"priority": True}, "priority = True"),
        ({"priority": 1.5}, r"priority = 1\.5"),
        ({"max_attempts": 0}, "max_attempts = 0: must be a whole number from 1"),
        ({"timeout": 0}, "timeout = 0: must be longer than nothing"),
        ({"deadline_policy": "skip"}, "deadline_policy = 'skip': must be 'run' or 'drop'"),
        ({"deadline_policy": "drop"}, "needs a delay_tolerance"),
        ({"unique_key": ""}, "unique_key = '': must be 1 to 500 characters"),
        (
            {"unique_key": "x" * 501},
            "unique_key = 'x+': must be 1 to 500 characters long; of more, take a hash",
        ),
        ({"unique_key": "a\0"}, r"unique_key = 'a\\x00': must not contain NUL"),
        ({"concurrency_key": "\ud800"}, "half of a surrogate pair"),
        ({"tenant_id": 5}, "tenant_id = 5: must be a string"),
        ({"tenant_id": "ä" * 128}, "1 to 255 bytes"),
        ({"tenant_id": ""}, "1 to 255 bytes"),
        ({"use_case": ""}, "1 to 255 bytes"),
        ({"use_case": "\0"}, "must not contain NUL"),
        ({"tags": "urgent"}, "tags = 'urgent': must be a list of strings"),
        ({"tags": [1]}, r"tags = \[1\]"),
        ({"meta": [1]}, "meta = .*: must be a mapping"),
        ({"backoff": lambda attempt: 5}, "a function cannot be stored with a job"),
        ({"backoff": "quadratic"}, "quadratic"),
    ],
)
def test_a_mistake_names_the_option_the_value_and_the_remedy(options: dict[str, Any], text: str):
    with pytest.raises(ConfigError, match=text):
        made(**options)


def test_names_of_queues_follow_the_rule_of_the_registry():
    with pytest.raises(HandlerError, match="queue 'a b' is no valid name"):
        made(queue="a b")


def test_meta_has_to_be_storable():
    with pytest.raises(PayloadError, match=r"\$\.meta\.a"):
        made(meta={"a": float("nan")})
    with pytest.raises(PayloadError, match="max_payload is 1,000"):
        made(meta={"a": "x" * 2_000})


def test_an_id_may_be_text():
    id = uuid4()
    assert job_id(id) == job_id(str(id)) == job_id(id.hex) == id
    for nonsense in ("", "5", 5, None):
        with pytest.raises(ConfigError, match="is no UUID"):
            job_id(nonsense)  # type: ignore[arg-type]


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_becomes_one_of_utc_or_a_clear_error(moment: datetime):
    try:
        made_of_it = instant("run_at", moment)
    except ConfigError:
        assert not 2 <= moment.year <= 9000
    else:
        assert made_of_it is not None
        assert made_of_it.timestamp() == moment.timestamp()


ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())
)


@given(st.sampled_from(sorted(NewJob.__annotations__.keys() - {"id", "kind", "payload"})), ANYTHING)
def test_nonsense_is_either_taken_or_refused_by_name(option: str, value: Any):
    try:
        job = made(**{"tags" if option == "headers" else option: value})
    except JobdError:
        return
    assert isinstance(job.id, UUID)
