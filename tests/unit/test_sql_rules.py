"""The house rules of SQL, held by reading the files: who writes `state`, who calls a block."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from importlib import resources
from pathlib import Path

import pytest

from jobd import sql
from jobd.bulk import Copying
from jobd.entry import Entry
from jobd.fleet import Fleet, Registration
from jobd.job import Claimed, FinishedRun, JobState, NewJob
from jobd.lifecycle import MOVES
from jobd.quotas import Quotas
from jobd.reader import Reader
from jobd.sql import Block
from jobd.store import Store
from jobd.sweeps import Sweeps
from jobd.timetable import Timetable

PACKAGE = Path(str(resources.files("jobd")))
OWNERS = {
    "entry": Entry,
    "lifecycle": Store,
    "sweep": Sweeps,
    "bulk": Copying,
    "fleet": Fleet,
    "quotas": Quotas,
    "reading": Reader,
    "standing": Reader,
    "schedules": Timetable,
}
BLOCKS = {
    name: block
    for file in ("entry", "lifecycle", "sweep", "bulk", "schedules")
    for name, block in sql.blocks(file).items()
}
ALL = [(file, block) for file in OWNERS for block in sql.blocks(file).values()]
# Asked by the store, to explain why no row matched.
EXPLANATIONS = {"state_of", "holder"}

WRITES = re.compile(
    r"\b(update\s+(only\s+)?jobd\.(jobs|job_history|tombstones)"
    r"|insert\s+into\s+jobd\.(jobs|job_history|tombstones)"
    r"|delete\s+from\s+(only\s+)?jobd\.(jobs|job_history|tombstones)"
    r"|copy\s+jobd\.(jobs|job_history|tombstones)|truncate)\b",
    re.IGNORECASE,
)

each_block = pytest.mark.parametrize(
    ("file", "block"), [pytest.param(file, block, id=block.name) for file, block in ALL]
)


def statement(block: Block) -> str:
    """The text without its comments."""
    return re.sub(r"--[^\n]*", "", block.text)


def test_every_write_of_a_job_stands_in_these_files():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.suffix in (".py", ".sql")
        and "migrations" not in path.parts
        and WRITES.search(path.read_text())
    }
    assert found == {
        "sql/entry.sql",
        "sql/lifecycle.sql",
        "sql/sweep.sql",
        "sql/functions.sql",
        "sql/functions_limits.sql",
        "sql/functions_keyed.sql",
        "sql/functions_many.sql",
        "sql/functions_admission.sql",
        "sql/functions_schedules.sql",
        "sql/bulk.sql",
        "sql/schedules.sql",
    }


def test_the_moves_are_the_blocks_that_write_state_in_the_order_of_a_jobs_life():
    moving = [name for name, block in BLOCKS.items() if "->" in contract(block)]
    elsewhere = {*sql.blocks("bulk"), *sql.blocks("schedules")}
    in_lifecycle = [name for name in MOVES if name not in elsewhere]
    assert moving == [*in_lifecycle, "copy", "copy_keyed", "trigger", "fire"]
    writing = {
        name
        for name, block in BLOCKS.items()
        if WRITES.search(statement(block))
        and not re.search(r"update jobd\.jobs j set progress", statement(block))
    }
    # Functions write, and so does whoever drops the partitions that prune names.
    assert writing == set(MOVES) - {
        "enqueue", "enqueue_many", "enqueue_keyed", "prune", "trigger", "claim_governed",
    }  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_a_blocks_arrow_is_its_move(name: str):
    sources, targets = re.split(r"->", contract(BLOCKS[name]), maxsplit=1)
    targets = re.split(r"[.,:;]", targets)[0]

    def named(text: str) -> set[str]:
        return set(re.findall(r"\w+", text)) & set(JobState)

    assert named(sources) == set(MOVES[name].sources)
    assert named(targets) == set(MOVES[name].targets)


def contract(block: Block) -> str:
    """The first lines of the comment, up to the full stop."""
    return " ".join(line.removeprefix("--").strip() for line in block.text.splitlines()[1:4])


@each_block
def test_a_block_uses_each_of_its_parameters_and_no_other(file: str, block: Block):
    used = {int(number) for number in re.findall(r"\$(\d+)", statement(block))}
    assert used == set(range(1, len(block.parameters) + 1))


@each_block
def test_no_placeholder_stands_inside_quotes(file: str, block: Block):
    literals = re.findall(r"'((?:[^']|'')*)'", statement(block))
    assert not [literal for literal in literals if re.search(r"\$\d", literal)]


@pytest.mark.parametrize("name", ["entry", "lifecycle", "sweep", "fleet", *sql.FUNCTIONS])
def test_predicates_on_state_are_literals(name: str):
    """A partial index is used only where the planner can prove its predicate."""
    text = re.sub(r"--[^\n]*", "", sql.script(name))
    assert not re.search(r"\bstate\s*(=|<>|in)\s*(any\s*)?\(?\s*\$\d", text)


@each_block
def test_a_block_says_what_it_is_for(file: str, block: Block):
    assert block.text.splitlines()[1].startswith("-- ")


@each_block
def test_jobd_is_named_wherever_it_is_meant(file: str, block: Block):
    """Nothing depends on the search path of a connection."""
    tables = (
        "jobs|job_history|tombstones|all_jobs|workers|queues|leader|schema_version|schedules|schedule_runs"
        "|tenants|kinds|use_cases|rates|turns"
        "|audit"
        "|unique_keys"
    )
    assert not re.search(rf"\b(from|join|into|update|only)\s+({tables})\b", statement(block))


def callers() -> dict[str, set[str]]:
    """By block: the methods that execute it."""
    found: dict[str, set[str]] = {block.name: set() for _, block in ALL}
    for owner in OWNERS.values():
        tree = ast.parse(Path(inspect.getfile(owner)).read_text())
        (body,) = [
            node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner.__name__
        ]
        for method in body.body:
            for node in ast.walk(method):
                match node:
                    case ast.Subscript(
                        value=ast.Name(id="BLOCKS" | "READING"), slice=ast.Constant(value=name)
                    ):
                        assert isinstance(method, ast.AsyncFunctionDef)
                        found[str(name)].add(f"{owner.__name__}.{method.name}")
    return found


@each_block
def test_a_block_is_executed_by_the_method_of_its_name(file: str, block: Block):
    own = {f"{OWNERS[file].__name__}.{block.name}"}
    by = callers()[block.name]
    if block.name in EXPLANATIONS:
        assert by - own <= {"Store.retry", "Store._explain"}
    else:
        assert by == own


@each_block
def test_a_method_takes_what_its_block_takes(file: str, block: Block):
    method = getattr(OWNERS[file], block.name, None)
    if method is None:
        assert block.name in EXPLANATIONS
        return
    # The rows of a COPY are its input and no parameter.
    given = set(inspect.signature(method).parameters) - {"self", "rows"}
    # Objects and columns stand for the parameters that they are taken apart into.
    for name, parts in {
        "job": set(NewJob._fields),
        "process": {field.name for field in fields(Registration)},
        "runs": {f"{name}s" for name in FinishedRun._fields} | {"unburned"},
        "claims": {"ids", "claim_nos"},
        "limited_rooms": {"limited"},
        "decisions": set(BLOCKS["fire"].parameters[3:-1]),
        "floors": {"floor_priorities", "floor_deadlines", "floor_ids"},
        "selection": set(sql.blocks("reading")["matching_past"].parameters[2:-2]),
        "already": set(sql.blocks("reading")["matching"].parameters[-4:]),
    }.items():
        if name in given:
            given = (given - {name}) | (parts & set(block.parameters))
    if "rooms" in given:
        given |= {"queues"}
    if "kind_rooms" in given:
        given |= {"kinds"}
    assert given == set(block.parameters)


def test_a_claim_is_made_of_what_its_block_returns_in_that_order():
    """`Store.claim` takes the columns by their place."""
    text = statement(sql.blocks("lifecycle")["claim"])
    returned = text.rpartition("returning")[2].split(",")
    assert [column.strip().removeprefix("j.") for column in returned] == list(Claimed._fields)


def test_a_script_that_has_no_blocks_is_read_whole():
    assert "create or replace function jobd.enqueue(" in sql.script("functions")
    assert sql.blocks("functions") == {}


@pytest.mark.parametrize("name", sql.FUNCTIONS)
def test_who_forbids_a_plan_compiles_none(name: str):
    # What is forbidden costs ten billion: far more than `jit_above_cost`.
    for function in re.split(r"^create or replace function ", sql.script(name), flags=re.MULTILINE)[1:]:
        head = function.partition("as $$")[0]
        assert ("set enable_" in head) == ("set jit = off" in head), head


def test_all_doors_for_one_job_take_all_that_a_job_has():
    every = {*NewJob._fields, "now"}
    assert set(BLOCKS["enqueue"].parameters) == every
    for name in ("enqueue_new", "enqueue_of_tenant"):
        assert set(BLOCKS[name].parameters) == every - {"unique_key", "unique_for", "on_conflict"}
