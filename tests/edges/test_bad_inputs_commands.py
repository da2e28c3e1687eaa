"""The table of bad inputs, row by row: what the command line, the settings and a start refuse."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobd.cli import main
from tests.edges.bad_inputs import read_rows
from tests.postgres import PostgresServer

ROWS = read_rows()

ID = "0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10"

SHOP = """
from jobd import Jobs
jobs = Jobs()
settings = {"currency": "EUR"}
"""


@dataclass
class Command:
    """A command line, the JOBD_ variables and the files it finds, and what its error has to name."""

    line: str
    names: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def toml(text: str, *names: str) -> Command:
    return Command("list", names, files={"jobd.toml": text})


def app(target: str, *names: str, **files: str) -> Command:
    return Command(
        "enqueue noop",
        ("JOBD_APP", target, *names),
        {"JOBD_APP": target},
        {"shop_jobs.py": SHOP, **{f"{name}.py": text for name, text in files.items()}},
    )


REFUSED = {
    "lease-short": Command(
        "list",
        ("JOBD_LEASE", "'5s'", "JOBD_HEARTBEAT is 3s", "raise it to 9s"),
        {"JOBD_LEASE": "5s", "JOBD_HEARTBEAT": "3s"},
    ),
    "setting-value": Command("list", ("JOBD_CONCURRENCY", "'many'", "whole"), {"JOBD_CONCURRENCY": "many"}),
    "retention-short": Command(
        "list", ("JOBD_HISTORY_RETENTION", "'12h'", "from 1d"), {"JOBD_HISTORY_RETENTION": "12h"}
    ),
    "toml-unknown-key": toml("concurency = 4", "concurency in jobd.toml", "did you mean concurrency?"),
    "toml-broken": toml("lease = 30s", "jobd.toml", "is not TOML", "line 1"),
    "toml-value": toml("lease = [30]", "lease in jobd.toml", "[30]", '"30s"'),
    "toml-queue-name": toml('[queues."high priority"]', "queues in jobd.toml", "'high priority'", "letters"),
    "toml-queue-keep": toml(
        '[queues.pings]\nkeep = "none"', "queues.pings.keep in jobd.toml", "'none'", "'errors'"
    ),
    "toml-rate": toml(
        '[queues.mail]\nrate = "fast"', "queues.mail.rate in jobd.toml", "'fast'", 'write it like "10/s"'
    ),
    "toml-burst": toml(
        "[queues.mail]\nburst = 5", "queues.mail.burst in jobd.toml", "5", "set queues.mail.rate"
    ),
    "toml-tenant-key": toml("[tenants.t1]\nmax_pendng = 5", "tenants.t1.max_pendng", "max_pending?"),
    "quotas-json": Command(
        "list",
        ("ASYNC_JOBS_PER_TENANT_QUOTAS", "{tenant1: 100}", '{"tenant1": {"max_pending_jobs": 100}}'),
        {"ASYNC_JOBS_PER_TENANT_QUOTAS": "{tenant1: 100}"},
    ),
    "quotas-value": Command(
        "list",
        ("ASYNC_JOBS_PER_TENANT_QUOTAS", "t1.max_pending_jobs", "'many'", "a whole number"),
        {"ASYNC_JOBS_PER_TENANT_QUOTAS": '{"t1": {"max_pending_jobs": "many"}}'},
    ),
    "quotas-table": Command(
        "list",
        ("t1 in ASYNC_JOBS_PER_TENANT_QUOTAS", "100", 'a table, like {"max_pending_jobs": 100}'),
        {"ASYNC_JOBS_PER_TENANT_QUOTAS": '{"t1": 100}'},
    ),
    "quotas-name": Command(
        "list",
        ("t1.max_pendng_jobs in ASYNC_JOBS_PER_TENANT_QUOTAS", "t1.max_pending_jobs?"),
        {"ASYNC_JOBS_PER_TENANT_QUOTAS": '{"t1": {"max_pendng_jobs": 100}}'},
    ),
    "toml-schedule-when": toml(
        '[[schedules]]\nid = "nightly"\nwhen = "30 25 * * *"\nkind = "report"',
        *("schedules[0].when in jobd.toml", "'30 25 * * *'", "hour '25'", "0 to 23", "'nightly'"),
    ),
    "toml-schedule-key": toml(
        '[[schedules]]\nid = "nightly"\nwhen = "@daily"\nkind = "report"\ncatchup = "all"',
        *("schedules[0].catchup in jobd.toml", "catch_up", "'nightly'"),
    ),
    "toml-schedule-lacks": toml(
        '[[schedules]]\nid = "nightly"\nkind = "report"', "schedules[0] in jobd.toml", "has no when"
    ),
    "toml-schedule-twice": toml(
        2 * '[[schedules]]\nid = "nightly"\nwhen = "@daily"\nkind = "report"\n',
        *("schedules in jobd.toml", "'nightly'", "give each its own"),
    ),
    "config-missing": Command(
        "list",
        ("JOBD_CONFIG", "'other.toml'", "no such file", "unset JOBD_CONFIG"),
        {"JOBD_CONFIG": "other.toml"},
    ),
    "database-url-scheme": Command(
        "list",
        ("JOBD_DATABASE_URL", "'mysql://db/shop'", "postgresql://user@host"),
        {"JOBD_DATABASE_URL": "mysql://db/shop"},
    ),
    "database-url-driver": Command(
        "list",
        ("JOBD_DATABASE_URL", "+asyncpg", "postgresql://..."),
        {"JOBD_DATABASE_URL": "postgresql+asyncpg://db/shop"},
    ),
    "database-url-malformed": Command(
        "list",
        ("JOBD_DATABASE_URL", "postgresql://app:***@db:54x2/shop", "must look like"),
        {"JOBD_DATABASE_URL": "postgresql://app:hunter2@db:54x2/shop"},
    ),
    "database-url-in-container": Command(
        "run",
        ("JOBD_DATABASE_URL", "postgresql://user@host"),
        {"JOBD_DATABASE_URL": "", "JOBD_IN_CONTAINER": "1"},
    ),
    "host-wrong": Command(
        "list",
        ("JOBD_DATABASE_URL", "postgresql://app@127.0.0.1:1/shop", "runs there"),
        {"JOBD_DATABASE_URL": "postgresql://app@127.0.0.1:1/shop"},
    ),
    "app-format": app("shop_jobs", '"module:attribute"'),
    "app-module-missing": app("shop_job:jobs", "no module shop_job", "did you mean shop_jobs:jobs?"),
    "app-attribute-missing": app("shop_jobs:job", "has no 'job'", "did you mean shop_jobs:jobs?"),
    "app-not-jobs": app("shop_jobs:settings", "a dict", "did you mean shop_jobs:jobs?"),
    "app-import-fails": app("shop_bad:jobs", "ZeroDivisionError", "shop_bad.py:2", shop_bad="\n1 / 0\n"),
    "command-unknown": Command("frobnicate", ("frobnicate", "jobd -h")),
    "command-option": Command("enqueue noop --prioritty 5", ("--prioritty", "--priority")),
    "command-json": Command("enqueue noop {'n':1}", ("line 1 column 2", "double quotes")),
    "command-duration": Command("enqueue noop --in 5min", ("--in", "'5min'", '"15m"')),
    "command-instant": Command("enqueue noop --at tomorrow", ("--at", "'tomorrow'", "2027-03-01T08:00")),
    "command-two-times": Command(
        "enqueue noop --in 5s --at 2030-01-01", ("--at", "--in", "give one of them")
    ),
    "command-queue-name": Command("queues pause high/priority", ("queue", "'high/priority'", "A-Z a-z 0-9")),
    "command-id": Command("show 17", ("ID", "UUID")),
    "command-nothing-chosen": Command("delete", ("jobd: delete: say", "--queue", "--all")),
    "command-ids-and-filters": Command(f"cancel {ID} --queue mail", ("--queue", "'mail'", "ids", "one of")),
    "command-ids-and-dry-run": Command(f"delete {ID} --dry-run", ("--dry-run", "ids", "one of")),
    "command-many-empty": Command("delete --queue mail --error=", ("--error", "''", "1 to 1,000")),
    "command-many-state": Command("move --state dead --to slow", ("--state", "'dead'", "scheduled, ready")),
    "command-many-age": Command("retry --newer-than yesterday", ("--newer-than", "'yesterday'", '"7d"')),
    "command-move-queue": Command("move --all --to high/priority", ("'high/priority'", "A-Z a-z 0-9")),
    "command-schedule": Command("schedules add s @dayly noop", ("'@dayly'", "@daily")),
    "command-schedule-json": Command("schedules add s @daily noop {'n':1}", ("line 1 column 2", "JSON")),
    "command-schedule-zone": Command("schedules preview @daily --tz Berlin", ("tz", "'Berlin'", "IANA")),
    "command-schedule-kind": Command("schedules add s @daily no/op", ("kind", "'no/op'", "A-Z a-z 0-9")),
    "command-limit": Command("queues set mail --max-running ten", ("--max-running", "'ten'", "whole number")),
    "command-limit-rate": Command("queues set mail --rate 100/month", ("--rate", "'100/month'", '"100/m"')),
    "command-limit-word": Command("tenants set t1 --on-full drop", ("--on-full", "'drop'", "'refuse'")),
    "command-limit-nothing": Command("queues set mail", ("limits: none is named", "--help")),
    "schedule-unknown": Command("schedules pause nightli", ("'nightli'", "jobd schedules list")),
    "queue-unknown": Command("queues resume imags", ("'imags'", "jobd queues list")),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, importable until the test ends, and no JOBD_ variables."""
    for name in [name for name in os.environ if name.startswith("JOBD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shop_")]:
        del sys.modules[name]


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Run a command line in this process; return how it exited, and its stderr."""
    monkeypatch.setattr(sys, "argv", ["jobd", *line.split()])
    with pytest.raises(SystemExit) as exit:
        main()
    return f"exit {exit.value.code or 0}", capsys.readouterr().err


@pytest.mark.parametrize("row", REFUSED)
def test_a_command_ends_with_its_code_and_one_block_that_says_what_to_do(
    row: str,
    folder: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    command = REFUSED[row]
    for name, content in command.files.items():
        (folder / name).write_text(content)
    for name, value in {"JOBD_DATABASE_URL": database_url, **command.settings}.items():
        monkeypatch.setenv(name, value)
    outcome, text = run(command.line, monkeypatch, capsys)
    assert "Traceback" not in text
    assert "hunter2" not in text
    ROWS[row].check(outcome, text, *command.names)


@pytest.mark.parametrize("row", ["schema-newer"])
def test_a_newer_schema_is_refused(
    row: str,
    postgres: PostgresServer,
    direct_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    name = direct_database_url.partition("@/")[2].partition("?")[0]
    postgres.execute("insert into jobd.schema_version (version, name) values (99, 'later')", name)
    monkeypatch.setenv("JOBD_DATABASE_URL", direct_database_url)
    outcome, text = run("migrate", monkeypatch, capsys)
    ROWS[row].check(outcome, text, "version 99", "upgrade jobd")


@pytest.mark.parametrize("row", ["database-missing"])
def test_a_database_that_is_not_there_is_named(
    row: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("JOBD_DATABASE_URL", postgres.dsn("shpo"))
    outcome, text = run("list", monkeypatch, capsys)
    ROWS[row].check(outcome, text, "JOBD_DATABASE_URL", '"shpo"', "correct")


@pytest.mark.parametrize("row", ["password-wrong"])
def test_a_wrong_password_ends_the_command_and_is_not_shown(
    row: str,
    own_postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    own_postgres.execute("create role app login password 'right'")
    own_postgres.stop()
    (own_postgres.folder / "data" / "pg_hba.conf").write_text(
        "local all app scram-sha-256\nlocal all all trust\n"
    )
    own_postgres.start()
    url = own_postgres.dsn("postgres").replace("postgres@", "app:wr0ng@")
    monkeypatch.setenv("JOBD_DATABASE_URL", url)
    outcome, text = run("list", monkeypatch, capsys)
    ROWS[row].check(outcome, text, "JOBD_DATABASE_URL", '"app"', "correct")
    assert "wr0ng" not in text


@pytest.mark.parametrize("row", ["port-taken"])
def test_a_daemon_whose_port_is_taken_does_not_start(
    row: str, folder: Path, database_url: str, tmp_path: Path
):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "jobd", "run"],
            cwd=tmp_path,
            env={**os.environ, "JOBD_DATABASE_URL": database_url, "JOBD_HTTP_PORT": port},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    ROWS[row].check(f"exit {done.returncode}", done.stderr, "JOBD_HTTP_PORT", port, "another port")
