"""The lead: one worker at a time, each change of hands a new term, and a proof before each write."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from jobd.fleet import Fleet
from tests.factories import SECOND
from tests.store.conftest import Held

LEAD = 5 * SECOND
NOW = datetime.now(UTC)
ANN, BOB = uuid4(), uuid4()


async def test_the_first_to_stand_leads_in_term_one(fleet: Fleet):
    assert await fleet.elect("leader", ANN, lease=LEAD, now=NOW) == 1
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW) is None


async def test_a_leader_that_renews_stays_in_its_term(fleet: Fleet):
    for step in range(5):
        assert await fleet.elect("leader", ANN, lease=LEAD, now=NOW + step * 4 * SECOND) == 1
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW + 20 * SECOND) is None


async def test_a_lead_that_lapsed_is_taken_over_in_a_new_term(fleet: Fleet):
    await fleet.elect("leader", ANN, lease=LEAD, now=NOW)
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW + LEAD) is None
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW + LEAD + SECOND) == 2
    assert await fleet.elect("leader", ANN, lease=LEAD, now=NOW + LEAD + SECOND) is None


async def test_a_leader_that_lapsed_and_that_nobody_replaced_goes_on_in_its_term(fleet: Fleet):
    await fleet.elect("leader", ANN, lease=LEAD, now=NOW)
    assert await fleet.elect("leader", ANN, lease=LEAD, now=NOW + 60 * SECOND) == 1


async def test_whoever_abdicates_is_followed_at_once(fleet: Fleet):
    await fleet.elect("leader", ANN, lease=LEAD, now=NOW)
    await fleet.abdicate("leader", BOB)
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW) is None
    await fleet.abdicate("leader", ANN)
    assert await fleet.elect("leader", BOB, lease=LEAD, now=NOW) == 2


async def test_only_the_leader_of_the_term_can_prove_it_and_only_while_the_lease_lasts(fleet: Fleet):
    await fleet.elect("leader", ANN, lease=LEAD, now=NOW)
    assert await fleet.proves_lead("leader", ANN, term=1, now=NOW + LEAD)
    assert not await fleet.proves_lead("leader", ANN, term=1, now=NOW + LEAD + SECOND)
    assert not await fleet.proves_lead("leader", ANN, term=2, now=NOW)
    assert not await fleet.proves_lead("leader", BOB, term=1, now=NOW)
    await fleet.elect("leader", BOB, lease=LEAD, now=NOW + 60 * SECOND)
    assert not await fleet.proves_lead("leader", ANN, term=1, now=NOW)
    assert await fleet.proves_lead("leader", BOB, term=2, now=NOW + 60 * SECOND)


async def test_nobody_takes_over_while_a_leader_that_proved_itself_writes(fleet: Fleet, held: Held):
    await fleet.elect("leader", ANN, lease=LEAD, now=NOW)
    assert await Fleet(held).proves_lead("leader", ANN, term=1, now=NOW)
    later = NOW + 60 * SECOND
    assert await held.commit_under(fleet.elect("leader", BOB, lease=LEAD, now=later)) == 2


async def test_of_two_that_stand_at_the_same_time_one_leads(fleet: Fleet, held: Held):
    assert await Fleet(held).elect("leader", ANN, lease=LEAD, now=NOW) == 1
    assert await held.commit_under(fleet.elect("leader", BOB, lease=LEAD, now=NOW)) is None


async def test_leads_of_different_names_are_independent(fleet: Fleet):
    assert await fleet.elect("leader", ANN, lease=LEAD, now=NOW) == 1
    assert await fleet.elect("scheduler", BOB, lease=LEAD, now=NOW) == 1
