"""The sums that workloads do."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from benchmarks.contestant import Failed
from benchmarks.machine import Stat, cpu_seconds
from benchmarks.options import parse
from benchmarks.workloads.deadlines import met_by_earliest_deadline_first
from benchmarks.workloads.drain import size_for
from benchmarks.workloads.fairness import jain, zipf
from benchmarks.workloads.latency import WARM_UP, Stamp, between, rate
from benchmarks.workloads.schedules import Written, others, plan_of, same_minute, spread_out
from benchmarks.workloads.snapshot import quarter_rates, quarter_rates_of_curve
from jobd.schedule import Schedule


@pytest.mark.parametrize(("rate", "size"), [(6, 1_000), (490, 3_000), (4_400, 30_000), (55_000, 100_000)])
def test_slow_contestants_drain_fewer_jobs(rate: float, size: int):
    assert size_for(rate, seconds=10, most=100_000) == size


def test_quarters_by_the_times_jobs_ended():
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0]
    assert quarter_rates(times) == [1.0, 1.0, 0.5, 0.25, 0.5]


def test_quarters_by_counts_are_cut_between_them():
    curve = [(0.0, 0), (2.0, 40), (2.5, 40), (4.0, 60), (8.0, 80)]
    assert quarter_rates_of_curve(curve) == [20.0, 20.0, 10.0, 5.0, 10.0]


def test_two_counts_tell_nothing_of_quarters():
    with pytest.raises(Failed, match="too few"):
        quarter_rates_of_curve([(0.0, 0), (1.0, 5)])


def test_even_shares_have_the_index_one_and_one_that_has_all_one_of_their_number():
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert zipf(1100, 3) == [600, 300, 200]


def test_at_best_the_earliest_deadline_goes_first_and_what_is_over_takes_no_slot():
    jobs = [(0.0, 10.0), (0.5, 9.0), (0.6, 1.5), (0.7, 0.9)]
    # One slot: the first, the third, the second; the fourth is over when the slot is free again.
    assert met_by_earliest_deadline_first(jobs, slots=1, service=1.0) == 3
    assert met_by_earliest_deadline_first(jobs, slots=4, service=1.0) == 4


def test_the_offered_rate_is_that_of_the_calls_and_not_of_the_plan():
    calls = [Stamp(sent, waited=1) for sent in range(0, 2_000_000_000, 10_000_000)]
    assert rate(calls) == pytest.approx(100)


def test_stamps_of_a_phase_are_those_sent_in_it():
    stamps = [Stamp(sent, waited=sent) for sent in reversed(range(100))]
    idle, offered = between(stamps, 0, 40), between(stamps, 40, None)
    assert [stamp.sent for stamp in idle] == list(range(WARM_UP, 40))
    assert [stamp.sent for stamp in offered] == list(range(40 + WARM_UP, 100))


def test_a_phase_with_hardly_a_stamp_fails():
    with pytest.raises(Failed, match="too few"):
        between([Stamp(sent, 1) for sent in range(WARM_UP)], 0, None)


# The last minutes of a day and of a month.
BEGIN = datetime(2026, 11, 30, 23, 57, 19, tzinfo=UTC)


def occurs(written: Written, after: datetime) -> datetime | None:
    id, text, zone, seconds = written
    return Schedule.parse(text, tz=zone, seconds=seconds, id=id).next_after(after)  # type: ignore[arg-type]


def test_the_minute_of_schedules_leaves_time_to_see_the_daemon_idle():
    minute, spread = plan_of(BEGIN, idle=30)
    assert (minute, spread) == (BEGIN.replace(second=0) + timedelta(minutes=1), minute + timedelta(seconds=5))
    assert plan_of(BEGIN + timedelta(seconds=1), idle=30)[0] == minute + timedelta(minutes=1)


def test_schedules_of_the_minute_occur_then_and_are_spelled_in_many_ways():
    minute, _ = plan_of(BEGIN, idle=30)
    written = list(same_minute(200, BEGIN, minute))
    assert {occurs(each, BEGIN) for each in written} == {minute}
    assert len({each.id for each in written}) == 200
    assert len({each.expression for each in written}) > 50


def test_spread_schedules_occur_once_between_two_moments():
    end = BEGIN + timedelta(seconds=60)
    for written in spread_out(200, BEGIN, end):
        at = occurs(written, BEGIN.replace(microsecond=0) - timedelta(seconds=1))
        assert at is not None and BEGIN <= at <= end
        assert (occurs(written, at) or end + timedelta(days=1)) > end + timedelta(hours=1)


def test_other_schedules_keep_quiet_while_the_rest_is_measured():
    end = BEGIN + timedelta(minutes=20)
    assert all((occurs(written, BEGIN) or end) >= end for written in others(200, BEGIN, end))


def test_a_process_name_may_hold_anything():
    stat = Stat("12 (a) b (c)) S 7 12 12 0 -1 4194304 1 2 3 4 11 22 33 44 20 0 1 0 100")
    assert (stat.parent, stat.session, stat.ended) == (7, 12, False)
    assert stat.times == (11, 22, 33, 44)


def test_cpu_of_this_process_counts_and_of_no_process_is_nothing():
    assert cpu_seconds(os.getpid()) > 0
    assert cpu_seconds(os.getpid(), without=frozenset([os.getpid()])) < cpu_seconds(os.getpid())
    assert cpu_seconds(2**31 - 1) == 0


def test_quick_is_small_and_has_no_pairs():
    options = parse(["--quick"])
    assert (options.rounds, options.sizes.pairs) == (1, 0)
    assert options.results.name == "quick"


def test_full_grows_the_history():
    assert parse(["--full"]).sizes.growth_finished == 50_000_000


def test_the_command_is_told_without_folders_of_the_machine():
    options = parse(["--only", "drain", "--results", "/home/me/x", "--cache=/var/me", "--rounds", "2"])
    assert options.told == ("--only", "drain", "--rounds", "2")


def test_only_and_contestants_keep_the_order_of_the_run():
    options = parse(["--only", "latency,drain", "--contestants", "pgqueuer,jobd"])
    assert options.workloads == ("drain", "latency")
    assert options.contestants == ("jobd", "pgqueuer")


@pytest.mark.parametrize("arguments", [["--only", "drian"], ["--contestants", "job"], ["--pairs", "9"]])
def test_a_wrong_word_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert arguments[1] in capsys.readouterr().err
