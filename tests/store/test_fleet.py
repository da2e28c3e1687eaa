"""Workers and queues: leases, who may judge whom, pauses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from jobd.door import Link
from jobd.errors import QueueUnknown
from jobd.fleet import Fleet, Registration
from jobd.reader import Reader
from jobd.store import Store
from tests.factories import LEASE, SECOND, make_job, make_worker, query, scalar
from tests.store.conftest import Ear, Held


def registration(**fields: object) -> Registration:
    defaults: dict[str, object] = {
        "worker_id": uuid4(),
        "host": "somewhere",
        "pid": 7,
        "version": "1.2.3",
        "queues": ("default", "mail"),
        "kinds": ("noop",),
        "roles": ("worker",),
        "concurrency": 10,
        "keeps": ("all", "nothing"),
    }
    return Registration(**defaults | fields)  # type: ignore[arg-type]


async def soon(door: Link) -> datetime:
    """A moment when the server has been up for several leases."""
    return await scalar(door, "select clock_timestamp()") + 10 * LEASE


async def judge(door: Link, now: datetime, **columns: object) -> UUID:
    """A worker that may take others for dead at `now`."""
    row = {"lease_until": now + LEASE, "confirmed_since": now - 2 * LEASE, "beat_at": now}
    return await make_worker(door, **row | columns)  # type: ignore[arg-type]


async def test_a_worker_that_begins_has_a_lease(fleet: Fleet, reader: Reader):
    process = registration()
    now = datetime.now(UTC)
    assert await fleet.register(process, lease=LEASE, now=now) == now + LEASE
    (worker,) = await reader.workers()
    assert (worker.id, worker.host, worker.pid, worker.version) == (
        process.worker_id,
        "somewhere",
        7,
        "1.2.3",
    )
    assert (worker.queues, worker.kinds, worker.roles) == (["default", "mail"], ["noop"], ["worker"])
    assert worker.started_at == worker.beat_at == worker.confirmed_since == now
    assert (worker.alive, worker.running, worker.stopping_at, worker.sleeping_until) == (True, 0, None, None)


async def test_the_lease_is_judged_by_the_clock_of_the_database(fleet: Fleet, door: Link):
    before = await scalar(door, "select clock_timestamp()")
    until = await fleet.register(registration(), lease=LEASE)
    assert before + LEASE <= until <= await scalar(door, "select clock_timestamp()") + LEASE


async def test_a_beat_renews_the_lease_and_keeps_what_was_confirmed(fleet: Fleet, reader: Reader):
    process = registration()
    start = datetime.now(UTC)
    await fleet.register(process, lease=LEASE, now=start)
    later = start + LEASE - SECOND
    assert await fleet.beat(process.worker_id, lease=LEASE, now=later) == later + LEASE
    (worker,) = await reader.workers()
    assert (worker.beat_at, worker.confirmed_since) == (later, start)


async def test_a_lease_that_lapsed_and_that_nobody_took_is_renewed_but_must_prove_itself_anew(
    fleet: Fleet, reader: Reader
):
    process = registration()
    start = datetime.now(UTC)
    await fleet.register(process, lease=LEASE, now=start)
    later = start + 4 * LEASE
    assert await fleet.beat(process.worker_id, lease=LEASE, now=later) == later + LEASE
    (worker,) = await reader.workers()
    assert worker.confirmed_since == later


async def test_a_worker_without_a_row_gets_no_lease(fleet: Fleet):
    assert await fleet.beat(uuid4(), lease=LEASE) is None


async def test_a_worker_that_resigns_has_no_row(fleet: Fleet, door: Link, reader: Reader):
    stays, goes = await make_worker(door), await make_worker(door)
    await fleet.resign(goes)
    assert [worker.id for worker in await reader.workers()] == [stays]


async def test_a_worker_that_is_stopping_says_so_and_is_woken_no_more(
    fleet: Fleet, door: Link, reader: Reader
):
    id = await make_worker(door, sleeping_until=datetime.now(UTC) + LEASE)
    now = datetime.now(UTC)
    await fleet.stopping(id, now=now)
    (worker,) = await reader.workers()
    assert (worker.stopping_at, worker.sleeping_until) == (now, None)


async def test_a_worker_that_dozes_is_woken_for_that_long(fleet: Fleet, door: Link, reader: Reader):
    id = await make_worker(door)
    now = datetime.now(UTC)
    await fleet.doze(id, period=5 * SECOND, now=now)
    (worker,) = await reader.workers()
    assert worker.sleeping_until == now + 5 * SECOND


async def test_running_of_lists_the_claims_of_one_worker_and_what_shall_stop(fleet: Fleet, door: Link):
    worker = await make_worker(door)
    runs = await make_job(door, state="running", worker_id=worker, claim_no=3)
    stops = await make_job(door, state="running", worker_id=worker, cancel_requested_at=datetime.now(UTC))
    await make_job(door, state="running")
    await make_job(door)
    found = {claim.id: (claim.claim_no, claim.cancel_requested) for claim in await fleet.running_of(worker)}
    assert found == {runs: (3, False), stops: (1, True)}


async def test_probe_writes_for_a_worker_that_has_a_row(fleet: Fleet, door: Link):
    assert await fleet.probe(await make_worker(door))
    assert not await fleet.probe(uuid4())


async def test_a_lapsed_worker_is_reaped_and_a_live_one_is_not(fleet: Fleet, door: Link, reader: Reader):
    now = await soon(door)
    me = await judge(door, now)
    dead = await make_worker(door, lease_until=now - SECOND)
    alive = await make_worker(door, lease_until=now + SECOND)
    assert await fleet.retire(me, lease=LEASE, now=now) == {dead}
    assert {worker.id for worker in await reader.workers()} == {me, alive}


async def test_nobody_reaps_itself(fleet: Fleet, door: Link):
    now = await soon(door)
    me = await judge(door, now, lease_until=now - SECOND)
    assert await fleet.retire(me, lease=LEASE, now=now) == set()


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param({"lease_until": -SECOND}, id="its own lease lapsed"),
        pytest.param({"confirmed_since": -LEASE + SECOND}, id="confirmed for less than a lease"),
        pytest.param({"confirmed_since": timedelta(0)}, id="confirmed just now"),
    ],
)
async def test_a_worker_that_was_cut_off_itself_judges_nobody(
    fleet: Fleet, door: Link, unfit: dict[str, timedelta]
):
    now = await soon(door)
    await make_worker(door, lease_until=now - SECOND)
    me = await judge(door, now, **{name: now + shift for name, shift in unfit.items()})
    assert await fleet.retire(me, lease=LEASE, now=now) == set()


async def test_a_process_that_is_no_worker_judges_nobody(fleet: Fleet, door: Link):
    now = await soon(door)
    await make_worker(door, lease_until=now - SECOND)
    assert await fleet.retire(uuid4(), lease=LEASE, now=now) == set()


async def test_nobody_is_reaped_within_a_lease_of_the_servers_start(fleet: Fleet, door: Link):
    """After an outage everybody's lease has lapsed, and nobody is dead."""
    started = await scalar(door, "select pg_postmaster_start_time()")
    await make_worker(door, lease_until=started - SECOND)
    for now, retired in ((started + LEASE - SECOND, 0), (started + LEASE, 1)):
        me = await judge(door, now)
        assert len(await fleet.retire(me, lease=LEASE, now=now)) == retired


async def test_a_beat_that_commits_first_wins_against_the_reaper(
    fleet: Fleet, door: Link, held: Held, reader: Reader
):
    now = await soon(door)
    me = await judge(door, now)
    late = await make_worker(door, lease_until=now - SECOND)
    assert await Fleet(held).beat(late, lease=LEASE, now=now)
    assert await fleet.retire(me, lease=LEASE, now=now) == set()
    await held.commit()
    assert await fleet.retire(me, lease=LEASE, now=now) == set()


async def test_a_late_beat_that_waits_for_the_reaper_gets_no_row(fleet: Fleet, door: Link, held: Held):
    now = await soon(door)
    me = await judge(door, now)
    late = await make_worker(door, lease_until=now - SECOND)
    assert await Fleet(held).retire(me, lease=LEASE, now=now) == {late}
    assert await held.commit_under(fleet.beat(late, lease=LEASE, now=now)) is None


async def test_two_reapers_take_each_worker_once(fleet: Fleet, door: Link, held: Held):
    now = await soon(door)
    first, second = await judge(door, now), await judge(door, now)
    dead = {await make_worker(door, lease_until=now - SECOND) for _ in range(3)}
    assert await Fleet(held).retire(first, lease=LEASE, now=now) == dead
    assert await fleet.retire(second, lease=LEASE, now=now) == set()
    await held.commit()


async def test_next_lapse_is_the_time_until_the_next_lease_of_another_worker_ends(fleet: Fleet, door: Link):
    now = datetime.now(UTC)
    me = await make_worker(door, lease_until=now + SECOND)
    assert await fleet.next_lapse(me) is None
    await make_worker(door, lease_until=now + 20 * SECOND)
    await make_worker(door, lease_until=now + 10 * SECOND)
    assert await fleet.next_lapse(me, now=now) == pytest.approx(10)


async def test_the_first_pause_keeps_its_time_and_its_author(fleet: Fleet, reader: Reader):
    since = await fleet.pause("default", by="ann")
    assert await fleet.pause("default", by="bob") == since
    (depth,) = await reader.depths()
    assert (depth.queue, depth.paused_at, depth.paused_by) == ("default", since, "ann")
    await fleet.resume("default")
    (depth,) = await reader.depths()
    assert (depth.paused_at, depth.paused_by) == (None, None)


async def test_a_queue_that_was_never_heard_of_cannot_be_resumed(fleet: Fleet):
    with pytest.raises(QueueUnknown, match="'nowhere'"):
        await fleet.resume("nowhere")


async def test_a_resumed_queue_wakes_a_worker_that_sleeps(fleet: Fleet, door: Link, ear: Ear):
    await make_worker(door, sleeping_until=datetime.now(UTC) + LEASE)
    await fleet.pause("default", by=None)
    await fleet.resume("default")
    assert await ear.heard() == [("jobd_wake", "default")]


async def test_queues_are_declared_once_and_stay_paused(fleet: Fleet, reader: Reader):
    await fleet.pause("a", by="ann")
    await fleet.declare_queues(["a", "b"], ["all", "all"])
    await fleet.declare_queues(["b", "a", "a"], ["all"] * 3)
    assert [(depth.queue, depth.paused_by) for depth in await reader.depths()] == [("a", "ann"), ("b", None)]


async def test_an_outage_longer_than_every_lease_costs_no_healthy_worker_its_jobs(
    fleet: Fleet, store: Store, door: Link
):
    """All lapse, all come back; whoever is first must not take the others for dead."""
    now = await soon(door)
    workers = [
        await make_worker(door, lease_until=now - 3 * LEASE, confirmed_since=now - 9 * LEASE)
        for _ in range(2)
    ]
    for worker in workers:
        await make_job(door, state="running", worker_id=worker)
    first, second = workers
    assert await fleet.beat(first, lease=LEASE, now=now)
    assert await fleet.retire(first, lease=LEASE, now=now) == set()
    assert await fleet.beat(second, lease=LEASE, now=now + 10 * SECOND)
    assert await fleet.retire(first, lease=LEASE, now=now + 10 * SECOND) == set()
    assert await store.rescue(batch=10, crash_limit=3) == {}
    assert await scalar(door, "select count(*) from jobd.jobs where crashes = 0 and state = 'running'") == 2


async def test_a_worker_that_stays_away_after_an_outage_is_taken_for_dead_in_the_end(
    fleet: Fleet, store: Store, door: Link
):
    now = await soon(door)
    gone = await make_worker(door, lease_until=now - 3 * LEASE)
    id = await make_job(door, state="running", worker_id=gone)
    me = await make_worker(door, lease_until=now - 3 * LEASE)
    for step in range(4):
        moment = now + step * 10 * SECOND
        await fleet.beat(me, lease=LEASE, now=moment)
        assert await fleet.retire(me, lease=LEASE, now=moment) == ({gone} if step == 3 else set())
    assert set(await store.rescue(batch=10, crash_limit=3)) == {id}


async def test_wake_is_for_the_queues_that_a_sleeper_serves(door: Link, ear: Ear):
    await make_worker(door, queues=["a", "b"], sleeping_until=datetime.now(UTC) + LEASE)
    await query(door, "select jobd.wake(array['a', 'a', 'c'])")
    await query(door, "select jobd.wake(null)")
    assert await ear.heard() == [("jobd_wake", "a")]
