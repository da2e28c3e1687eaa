"""Each block is a statement that PostgreSQL accepts on a fresh schema, with the parameters it names."""

from __future__ import annotations

import asyncpg

from jobd import sql

FILES = ("entry", "lifecycle", "sweep", "bulk", "fleet", "quotas", "reading", "standing", "schedules")
# COPY cannot be prepared; test_bulk executes it.
UTILITIES = {"copy", "copy_keyed"}


async def test_every_block_prepares_with_the_parameters_its_header_names(direct_database_url: str):
    connection = await asyncpg.connect(direct_database_url)
    wrong = {}
    for block in (block for file in FILES for block in sql.blocks(file).values()):
        if block.name in UTILITIES:
            continue
        try:
            statement = await connection.prepare(block.text)
        except asyncpg.PostgresError as error:
            wrong[block.name] = str(error)
            continue
        types = [parameter.name for parameter in statement.get_parameters()]
        # A parameter whose type was left to guess fails, or sorts as text, only when it is used.
        if len(types) != len(block.parameters) or "unknown" in types:
            wrong[block.name] = f"{block.parameters} against {types}"
    await connection.close()
    assert not wrong


def test_no_two_blocks_have_the_same_name():
    names = [name for file in FILES for name in sql.blocks(file)]
    assert len(names) == len(set(names))
    assert len(names) > 30
