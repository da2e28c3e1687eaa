"""The documentation: what it names exists, what it shows compiles, where it points there is something."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from jobd.cli.verbs import (
    KIND_VERBS,
    QUEUE_VERBS,
    SCHEDULE_VERBS,
    TENANT_VERBS,
    USE_CASE_VERBS,
    VERBS,
)
from jobd.lifecycle import OUTCOMES
from jobd.options import EnqueueOptions, JobOptions
from jobd.setting_fields import Settings, SmtpSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])

# Read by something else than the settings.
OTHER_VARIABLES = {"JOBD_CONFIG", "JOBD_IN_CONTAINER", "JOBD_TEST_POSTGRES", "JOBD_TEST_POOLER"}

per_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_spans(text: str) -> list[str]:
    return [span for _, span in re.findall(r"(`+)(.+?)\1(?!`)", text)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    rows = re.search(rf"^#+ {heading}\n(?:(?!\|).*\n)*((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows, f"no table below {heading!r}"
    cut = re.compile(r"(?<!\\)\|")
    return [[cell.strip() for cell in cut.split(row)[1:-1]] for row in rows[1].splitlines()[2:]]


@cache
def functions_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@per_page
def test_every_test_that_a_page_names_exists(page: Path):
    for name, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        assert test in functions_of(ROOT / name), f"{name} has no {test}"


@per_page
def test_every_file_that_a_page_names_exists(page: Path):
    for span in code_spans(page.read_text(encoding="utf-8")):
        if re.fullmatch(r"(jobd|tests|docs|migrations|benchmarks|examples)/[a-z0-9_/.-]*", span):
            assert (ROOT / span).exists(), f"there is no {span}"


@per_page
def test_every_link_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://", target):
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{target}: no such file"
            assert not anchor or anchor in anchors_of(there), f"{target}: no such heading"


@per_page
def test_every_piece_of_python_compiles(page: Path):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@per_page
def test_every_variable_that_a_page_names_is_read(page: Path):
    known = {f"JOBD_{name.upper()}" for name in Settings.model_fields}
    known |= {f"JOBD_SMTP__{name.upper()}" for name in SmtpSettings.model_fields} | OTHER_VARIABLES
    for name in re.findall(r"\bJOBD_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")):
        assert name in known or name.startswith(("JOBD_QUEUES__", "JOBD_TENANTS__")), f"{name} is no setting"


def test_every_guarantee_names_a_test():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    promises, _, _ = text.partition("## What jobd does not promise")
    for promise in re.findall(r"^- \*\*(?:.+\n)(?:  .+\n)*", promises, re.MULTILINE):
        assert "::test_" in promise, f"no test is named for: {promise}"


def test_the_options_of_an_enqueue_are_all_explained():
    text = (ROOT / "docs" / "enqueueing.md").read_text(encoding="utf-8")
    explained = [option for row in table(text, "Options") for option in code_spans(row[0])]
    known = {*JobOptions.__annotations__, *EnqueueOptions.__annotations__, "connection"}
    assert sorted(explained) == sorted(known)


def test_the_verbs_of_the_command_line_are_all_explained():
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    explained: set[tuple[str, ...]] = set()
    for row in table(text, "The command line"):
        for span in code_spans(row[0]):
            verb, *words = span.replace("\\|", "|").split()
            parts = [part for word in words for part in word.split("|") if part.isalpha() and part.islower()]
            explained |= {(verb, part) for part in parts} or {(verb,)}
    verbs: set[tuple[str, ...]] = {
        (function.__name__.rstrip("_"),) for panel in VERBS.values() for function in panel
    }
    for group, functions in (
        ("queues", QUEUE_VERBS),
        ("tenants", TENANT_VERBS),
        ("kinds", KIND_VERBS),
        ("use-cases", USE_CASE_VERBS),
        ("schedules", SCHEDULE_VERBS),
    ):
        verbs |= {(group, function.__name__.rstrip("_")) for function in functions}
    assert {words for words in explained if words != ("ID...",)} == verbs


def test_the_lines_of_the_log_are_those_that_are_written():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "jobd").rglob("*.py"))
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    for row in table(text, "Log"):
        for line in code_spans(row[0]):
            written = line.removeprefix("job ") in OUTCOMES.values() or f'"{line}' in sources
            assert written, f"nothing logs {line!r}"
