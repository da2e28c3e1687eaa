"""The embedded PostgreSQL: made once, shared by who uses the folder, gone when the last one leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobd import embedded
from jobd.embedded import EmbeddedPostgres, find_binaries
from jobd.errors import ConfigError
from tests.signals import eventually

QUICK = {"fsync": "off"}

START_AND_HANG = """
import sys, time
from pathlib import Path
from jobd.embedded import EmbeddedPostgres
EmbeddedPostgres(Path(sys.argv[1])).start()
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as server:
        yield server


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def postmaster(server: EmbeddedPostgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def state_of(pid: int) -> str:
    """The letter ps shows; Z and nothing both mean that the process has ended."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


def test_the_server_answers_in_utf8_and_utc_on_a_socket_only(server: EmbeddedPostgres) -> None:
    dsn = server.dsn()
    assert ask(dsn, "show server_encoding") == "UTF8"
    assert ask(dsn, "show timezone") == "UTC"
    assert ask(dsn, "show listen_addresses") == ""
    assert ask(dsn, "select lower('ÄÉ')") == "äé"


def test_a_new_cluster_is_durable_unless_told_otherwise(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        assert ask(server.dsn(), "show fsync") == "on"
        assert ask(server.dsn(), "show data_checksums") == "on"


def test_data_outlives_the_server(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as server:
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("create table kept as select 42 as answer")
        first = postmaster(server)
    assert state_of(first) in {"", "Z"}
    with EmbeddedPostgres(tmp_path / "postgres") as server:
        assert ask(server.dsn(), "select answer from kept") == 42


def test_a_second_user_of_the_folder_joins_and_the_last_one_out_stops_the_server(
    server: EmbeddedPostgres,
) -> None:
    second = EmbeddedPostgres(server.folder)
    assert second.start() == server.dsn()
    assert not server.stop()
    assert ask(second.dsn(), "select 1") == 1
    assert second.stop()
    assert not second.is_running()


def test_a_server_left_by_a_killed_process_is_used_again_and_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    command = [sys.executable, "-c", START_AND_HANG, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        os.kill(process.pid, signal.SIGKILL)
    server = EmbeddedPostgres(folder)
    left_behind = postmaster(server)
    asyncio.run(eventually(lambda: state_of(left_behind), until=lambda state: state == "S"))
    server.start()
    assert postmaster(server) == left_behind
    assert server.stop()
    assert state_of(left_behind) in {"", "Z"}


def test_a_path_too_long_for_a_socket_gets_a_short_private_one(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    with EmbeddedPostgres(folder, settings=QUICK) as server:
        assert server.sockets != folder
        assert server.sockets.stat().st_mode & 0o777 == 0o700
        assert ask(server.dsn(), "select 1") == 1
    server.sockets.rmdir()


def test_a_first_start_killed_half_way_leaves_nothing_to_trip_over(tmp_path: Path) -> None:
    half_made = tmp_path / "postgres" / "data.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as server:
        assert ask(server.dsn(), "select 1") == 1


def test_data_of_another_major_version_is_refused_in_the_servers_words(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", settings=QUICK)
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigError, match="initialized by PostgreSQL version 12"):
        server.start()


def test_without_the_extra_the_error_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"install jobd\[embedded\].*or set JOBD_DATABASE_URL"):
        find_binaries()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_without_user_namespaces_runs_the_server_as_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    closed = EmbeddedPostgres(tmp_path / "postgres", settings=QUICK)  # tmp_path is for its owner alone
    with pytest.raises(ConfigError, match="may not enter"):
        closed.start()
