"""Two weeks of five hundred schedules; CONTRIBUTING.md has the command for a year."""

from __future__ import annotations

import pytest

from tests.engine.schedule_simulation import Simulation


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_whatever_happens_to_schedulers_each_occurrence_is_told_once(direct_database_url: str):
    simulation = Simulation(direct_database_url, seed=1, days=14)
    try:
        await simulation.run()
    finally:
        await simulation.close()
    # What it is about did happen.
    for what in ("downtimes", "clock steps back", "stale looks", "cut off", "ran", "missed catch_up"):
        assert simulation.tally[what] > 0, simulation.tally
    killed = {what.split()[-1] for what in simulation.tally if what.startswith("killed")}
    assert {"due", "fire", "elect"} <= killed, simulation.tally
