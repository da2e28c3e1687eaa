"""Zones: their transitions, found where zoneinfo has them, and names that are none."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, _zoneinfo  # type: ignore[attr-defined]

import pytest

from jobd.errors import ConfigError
from jobd.zone import Transition, find_zone

BEGIN, END = datetime(1970, 1, 1), datetime(2038, 1, 1)


def listed(name: str) -> list[Transition]:
    """The transitions in the zone's file, as the implementation of zoneinfo in Python reads them."""
    data = _zoneinfo.ZoneInfo.no_cache(name)
    found: list[Transition] = []
    before = data._tti_before.utcoff if data._tti_before else data._tz_after.utcoff
    for at, info in zip(data._trans_utc, data._ttinfos, strict=True):
        if info.utcoff != before:
            found.append(Transition(datetime(1970, 1, 1) + timedelta(seconds=at), before, info.utcoff))
        before = info.utcoff
    return found


def found(name: str, until: datetime) -> list[Transition]:
    zone, after, transitions = find_zone(name), BEGIN - timedelta(seconds=1), []
    while (transition := zone.next_transition(after, until=until)) is not None:
        transitions.append(transition)
        after = transition.at
    return transitions


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_transition_that_tzdata_lists_is_found():
    seen = set()
    for name in sorted(zoneinfo.available_timezones() - {"localtime"}):
        wanted = [transition for transition in listed(name) if BEGIN <= transition.at < END]
        if not wanted or tuple(wanted) in seen:
            continue
        seen.add(tuple(wanted))
        assert found(name, wanted[-1].at) == wanted, name
    assert len(seen) > 200


def test_transitions_that_follow_a_rule_are_found():
    summer, winter = found("Europe/Berlin", datetime(2091, 1, 1))[-2:]
    assert (summer.at, summer.forward) == (datetime(2090, 3, 26, 1), True)
    assert (winter.at, winter.forward) == (datetime(2090, 10, 29, 1), False)
    assert winter[1:] == (timedelta(hours=2), timedelta(hours=1))


def test_the_last_transition_is_found_up_to_its_very_instant():
    zone = find_zone("Europe/Berlin")
    at = datetime(2026, 10, 25, 1)
    since = at - timedelta(days=300)
    last = zone.last_transition(at, since=since)
    assert last is not None and last.at == at
    before = zone.last_transition(at - timedelta(seconds=1), since=since)
    assert before is not None and before.at == datetime(2026, 3, 29, 1)
    assert zone.last_transition(at - timedelta(seconds=1), since=at - timedelta(days=1)) is None
    assert zone.next_transition(at, until=at + timedelta(days=100)) is None


def test_an_offset_is_what_zoneinfo_says():
    at = datetime(2026, 7, 1, 12)
    expected = at.replace(tzinfo=UTC).astimezone(ZoneInfo("Asia/Kathmandu")).utcoffset()
    assert find_zone("Asia/Kathmandu").offset(at) == expected == timedelta(hours=5, minutes=45)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Berlin", "did you mean 'Europe/Berlin'?"),
        ("New York", "did you mean 'America/New_York'?"),
        ("utc", "did you mean 'UTC'?"),
        ("CEST", 'write it like "Europe/Berlin" or "UTC"'),
        ("UTC+2", 'write it like "Europe/Berlin" or "UTC"'),
        ("", "write it like"),
        ("Europe", "write it like"),
        ("localtime", "write it like"),
        ("right/UTC", "write it like"),
        ("../../../etc/passwd", "write it like"),
        ("/etc/localtime", "write it like"),
        ("Europe/Berlin\0", "IANA"),
        ("x" * 5_000, "write it like"),
    ],
)
def test_a_name_that_is_no_zone_is_refused(name: str, hint: str):
    try:
        wrong = find_zone(name).key
    except ConfigError as error:
        assert hint in str(error)
        assert error.setting == "tz"
    else:
        # On a file system that does not tell Europe from europe.
        assert wrong.lower() == "europe/berlin"
