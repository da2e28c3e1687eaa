"""Results survive a file, and the report shows them."""

from __future__ import annotations

from benchmarks.report import markdown
from benchmarks.results import Results, Sample, Walk
from benchmarks.verdicts import Verdict


def results() -> Results:
    return Results(
        environment={"cores": "2", "stores": {"jobd": "postgresql"}},
        samples=[
            Sample("drain", "jobd", "", 1, {"drain_per_second": 30_000.0, "jobs": 1000}),
            Sample("drain", "jobd", "", 2, {"drain_per_second": 20_000.0, "jobs": 1000}),
            Sample("drain", "jobd", "", 3, {"drain_per_second": 25_000.0, "jobs": 1000}),
            Sample("drain", "pgqueuer", "", 1, {"drain_per_second": 13_000.0}),
        ],
        walks=[Walk("steady", (("A", 1.0), ("B", 2.0)))],
        notes=["arq left out: no redis-server"],
    )


def test_results_come_back_from_json_as_they_were():
    assert Results.from_json(results().as_json()) == results()


def test_the_table_shows_medians_between_least_and_most():
    text = markdown(results(), [])
    assert "| jobd | 1,000 | 25,000 (20,000 - 30,000) |" in text


def test_what_a_contestant_has_not_is_a_dash():
    assert "| pgqueuer | - | 13,000 |" in markdown(results(), [])


def test_verdicts_and_notes_stand_in_the_report():
    text = markdown(results(), [Verdict("drain: 2x", "2.31", "holds")])
    assert "| drain: 2x | 2.31 | holds |" in text
    assert "- arq left out: no redis-server" in text


def test_the_head_names_who_was_left_out_and_nobody_where_all_came():
    assert "- left out: arq, saq" in markdown(Results(environment={"left out": ["arq", "saq"]}), [])
    assert "left out" not in markdown(Results(environment={"left out": []}), [])
