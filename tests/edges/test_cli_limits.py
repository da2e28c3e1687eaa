"""The verbs that see and set limits: queues, tenants, kinds, use-cases."""

from __future__ import annotations

import re
from typing import Any

import pytest

from jobd.door import Link
from jobd.quotas import Quotas
from tests.edges.command import in_database, jobd
from tests.factories import make_job, make_worker


def listed(group: str, key: str = "name") -> dict[str, Any]:
    return {row[key]: row for row in jobd(group, "list", "--json").json}


def test_limits_of_a_queue_are_set_and_listed_with_what_runs(shell: str) -> None:
    async def busy(link: Link) -> None:
        await make_job(link, queue="mail", state="running", worker_id=await make_worker(link))

    in_database(shell, busy)
    words = ("--max-running", 10, "--rate", "100/m", "--burst", 5, "--fair", "--weight", 2)
    answer = jobd("queues", "set", "mail", *words)
    assert "max_running  10" in answer.out and "rate         100/m" in answer.out
    mail = listed("queues", "queue")["mail"]
    said = ("max_running", "rate", "burst", "fair", "weight", "running")
    assert [mail[name] for name in said] == [10, "100/m", 5, True, 2, 1]
    head, row = jobd("queues", "list").out.splitlines()
    assert head.split()[:6] == ["queue", "ready", "scheduled", "running", "rate", "shares"]
    assert "1 of 10" in row and "100/m, 5 at once" in row and "fair, weight 2" in row
    jobd("queues", "set", "mail", "--rate", "none", "--unfair")
    mail = listed("queues", "queue")["mail"]
    assert [mail[name] for name in said] == [10, None, None, False, 2, 1]
    assert "@" in mail["changed_by"] and "T" in mail["changed_at"]
    assert re.search(r"changed_at +[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [^ ]+\n", answer.out)
    assert "delay_tolerance  10m" in jobd("queues", "set", "mail", "--delay-tolerance", "600s").out
    assert listed("queues", "queue")["mail"]["delay_tolerance"] == "10m"
    jobd("queues", "set", "mail", "--delay-tolerance", "none")
    assert listed("queues", "queue")["mail"]["delay_tolerance"] is None


def test_a_queue_is_drained_and_stays_paused(shell: str) -> None:
    jobd("queues", "set", "mail", "--max-running", 10)
    assert jobd("queues", "drain", "mail", "--backlog", "--timeout", "1m").word == "queue mail is drained"
    answer = jobd("queues", "drain", "mail", "--timeout", "1m").word
    assert answer == "queue mail is drained, and paused: `jobd queues resume mail`"
    assert listed("queues", "queue")["mail"]["paused_at"] is not None


def test_a_drain_that_takes_too_long_says_so_and_exits_with_1(shell: str) -> None:
    async def busy(link: Link) -> None:
        await make_job(link, queue="mail", state="running", worker_id=await make_worker(link))

    in_database(shell, busy)
    jobd("queues", "set", "mail", "--max-running", 10)
    answer = jobd("queues", "drain", "mail", "--timeout", "10ms", code=1)
    assert "1 of its jobs runs\n" in answer.err
    assert "queue 'mail' is not drained after 0.01 s: 1 of its jobs still runs; it stays paused" in answer.err


def test_limits_of_a_tenant(shell: str) -> None:
    assert jobd("tenants", "list").err.startswith("no tenant has limits")
    jobd("tenants", "set", "t1", "--max-pending", 100, "--max-running", 5, "--on-full", "shed", "--not-exact")
    t1 = listed("tenants", "id")["t1"]
    assert [t1[name] for name in ("max_pending", "pending", "max_running", "on_full", "exact")] == [
        *(100, 0, 5, "shed", False)
    ]
    _, row = jobd("tenants", "list").out.splitlines()
    assert "0 of 100" in row and "shed, not exact" in row and "0 of 5" in row
    assert jobd("tenants", "remove", "t1").word == "tenant t1 has no limits any more"
    assert "tenant t1 had no limits" in jobd("tenants", "remove", "t1").err


def test_limits_of_the_keys_of_a_kind(shell: str) -> None:
    jobd("kinds", "set", "sync", "--key-limit", 3, "--key-rate", "10/s", "--key-burst", 2)
    sync = listed("kinds")["sync"]
    assert [sync[name] for name in ("key_limit", "ordered", "key_rate", "key_burst")] == [3, False, "10/s", 2]
    assert "3 at once" in jobd("kinds", "list").out
    jobd("kinds", "set", "sync", "--ordered", "--key-limit", "none", "--key-rate", "none")
    assert "one by one, in order" in jobd("kinds", "list").out


def test_the_limit_of_a_use_case(shell: str) -> None:
    jobd("use-cases", "set", "labels", "--max-running", 2)
    assert "0 of 2" in jobd("use-cases", "list").out
    jobd("use-cases", "set", "labels", "--max-running", "none")
    assert listed("use-cases")["labels"]["max_running"] == 10


def test_a_name_that_no_daemon_serves_is_told_and_taken_all_the_same(shell: str) -> None:
    in_database(shell, lambda link: make_worker(link, queues=["default", "mail"], kinds=["send", "sync"]))
    for words, told in (
        (
            ("queues", "set", "mial", "--max-running", 3),
            "no daemon serves queue 'mial' so far; known: default, mail",
        ),
        (
            ("kinds", "set", "synk", "--key-limit", 3),
            "no daemon serves kind 'synk' so far; known: send, sync",
        ),
    ):
        assert jobd(*words).err.splitlines() == [told]
        assert jobd(*words).err == ""
    assert jobd("queues", "set", "mail", "--max-running", 3).err == ""
    assert jobd("kinds", "set", "sync", "--key-limit", 3).err == ""
    assert listed("kinds").keys() == {"sync", "synk"}


def test_what_is_declared_otherwise_is_shown_and_brought_back(shell: str) -> None:
    said: dict[str, dict[str, Any]] = {
        "queues": {"mail": {"max_running": 10, "rate": "100/m"}},
        "tenants": {"t1": {"max_pending": 100}},
        "kinds": {"sync": {"key_limit": 2}},
        "use_cases": {"labels": {"max_running": 7}},
    }
    in_database(shell, lambda link: Quotas(link).declare_limits("file:shop", said))
    for group, name, words, otherwise, shown in (
        ("queues", "mail", ("--max-running", 3), "max_running 10", "max_running 10, rate 100/m"),
        ("tenants", "t1", ("--max-pending", "none"), "max_pending 100", "max_pending 100"),
        ("kinds", "sync", ("--key-limit", 5), "key_limit 2", "key_limit 2"),
        ("use-cases", "labels", ("--max-running", "none"), "max_running 7", "max_running 7"),
    ):
        assert otherwise not in jobd(group, "list").out
        assert shown in jobd(group, "set", name, *words).out
        head, row = jobd(group, "list").out.splitlines()
        assert head.split()[-1] == "declared" and row.rstrip().endswith(otherwise)
        assert "@" in jobd(group, "reset", name).out
        assert otherwise not in jobd(group, "list").out
        assert "nothing was ever said of" in jobd(group, "reset", "nowhere", code=1).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("queues set mail", "limits: none is named; see the verb's --help"),
        ("queues set mail --max-running ten", "--max-running = 'ten': must be a whole number, or none"),
        (
            "queues set mail --max-running -1",
            "--max-running = -1: must be a whole number from 0 to 2147483647, or none for no limit",
        ),
        ("queues set mail --rate 100/month", "--rate = '100/month': is not a rate; write it like"),
        ("queues set mail --burst 5", "--burst = 5: belongs to a rate, and none is set; set both"),
        ("queues set mail --weight 0", "--weight = 0: must be a whole number from 1 to 1000, or none for 1"),
        (
            "use-cases set labels --max-running -1",
            "--max-running = -1: must be a whole number from 0 to 2147483647, or none for 10",
        ),
        (
            "kinds set sync --key-limit 0",
            "--key-limit = 0: must be a whole number from 1 to 2147483647, or none for 1",
        ),
        ("queues set mail --delay-tolerance soon", "--delay-tolerance = 'soon': is not a duration; write it"),
        ("queues set high/priority --weight 2", "queue 'high/priority' is no valid name"),
        ("tenants set t1 --on-full drop", "--on-full = 'drop': must be 'refuse', 'shed' or 'delay'"),
        ("queues set mail --max-running -7", "2147483647, or none for no limit"),
        ("kinds set sync --ordered --key-limit 3", "--key-limit = 3: jobs of a key that run in order run"),
        ("kinds set sync --key-rate fast", "--key-rate = 'fast': is not a rate"),
        ("queues drain mail --timeout soon", "jobd: --timeout = 'soon': is not a duration"),
    ],
)
def test_what_cannot_be_is_refused_as_it_was_typed(shell: str, words: str, message: str) -> None:
    assert message in jobd(*words.split(), code=2).err


def test_a_queue_that_nobody_knows_is_not_drained(shell: str) -> None:
    assert "no queue 'imgaes' is known" in jobd("queues", "drain", "imgaes", code=1).err
