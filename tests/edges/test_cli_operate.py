"""The verbs for operators: migrate, check, queues, workers, health."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from jobd.door import Link
from jobd.migrate import needed_version, script
from tests.edges.command import in_database, jobd, jobd_process
from tests.factories import make_job, make_worker

SECRET = "hunter2"

APP = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("resize", queue="images")
async def resize(key: str) -> None: ...

@jobs.handler("tidy")
def tidy() -> None: ...
"""


def test_migrate_brings_an_empty_database_up_to_date_once(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", empty_database_url)
    assert "run `jobd migrate`" in jobd("migrate", "--check", code=1).err
    assert "applied 0001_initial" in jobd("migrate").out
    again = jobd("migrate").word
    assert again == f"the schema is current: version {needed_version()}"
    assert jobd("migrate", "--check").word == again


def test_migrate_with_sql_prints_the_script_and_asks_no_database(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert jobd("migrate", "--sql").out == script()


def test_every_verb_tells_how_to_get_a_schema(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", empty_database_url)
    for words in (["list"], ["enqueue", "tidy"], ["workers"], ["queues", "list"]):
        assert "run `jobd migrate`" in jobd(*words, code=1).err


def test_queues_can_be_paused_and_resumed(shell: str) -> None:
    in_database(shell, lambda link: make_job(link, queue="images"))
    assert jobd("queues", "pause", "images").word.startswith("queue images is paused since")
    (images,) = (queue for queue in jobd("queues", "list", "--json").json if queue["queue"] == "images")
    assert images["ready"] == 1
    assert images["paused_at"] is not None
    assert f"by {images['paused_by']}" in jobd("queues", "list").out
    assert jobd("queues", "resume", "images").word == "queue images is served again"
    assert "paused since" not in jobd("queues", "list").out


def test_resuming_a_queue_that_nobody_knows_is_refused(shell: str) -> None:
    assert "no queue 'imgaes' is known" in jobd("queues", "resume", "imgaes", code=1).err


def test_workers_shows_who_lives_and_who_does_not(shell: str) -> None:
    async def work(link: Link) -> list[UUID]:
        alive = await make_worker(link)
        lapsed = await make_worker(link, lease=timedelta(seconds=-1))
        await make_job(link, state="running", worker_id=alive)
        return [alive, lapsed]

    alive, lapsed = in_database(shell, work)
    rows = {line.split()[0]: line.split() for line in jobd("workers").out.splitlines()[1:]}
    assert rows[str(alive)][1:3] == ["alive", "1/10"]
    assert rows[str(lapsed)][1:3] == ["lapsed", "0/10"]
    assert {worker["id"] for worker in jobd("workers", "--json").json} == {str(alive), str(lapsed)}


def test_check_explains_every_setting_with_its_source(
    shell: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "jobd.toml").write_text('concurrency = 7\napp = "gallery:jobs"\n')
    (folder / "gallery.py").write_text(APP)
    monkeypatch.setenv("JOBD_CRASH_LIMIT", "5")
    answer = jobd("check", "--json").json
    settings = {line["name"]: (line["value"], line["source"]) for line in answer["settings"]}
    assert settings["concurrency"] == ("7", "jobd.toml")
    assert settings["crash_limit"] == ("5", "environment")
    assert settings["lease"] == ("30s", "default")
    assert all(finding["ok"] for finding in answer["findings"])
    out = jobd("check").out
    assert "schema is current" in out
    assert "gallery:jobs has 2 handlers" in out
    assert "resize (queue images, in the loop)" in out
    assert "tidy (queue default, in a thread)" in out


def test_check_names_all_wrong_settings_and_a_likely_misspelling(
    shell: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "jobd.toml").write_text('concurrency = 0\nlease = "soon"\n')
    monkeypatch.setenv("JOBD_CONCURENCY", "7")
    out = jobd("check", code=2).out
    assert "FAIL  settings: concurrency in jobd.toml = 0" in out
    assert "FAIL  settings: lease in jobd.toml = 'soon'" in out
    assert "JOBD_CONCURENCY is not read by jobd; did you mean JOBD_CONCURRENCY?" in out


def test_check_without_an_answering_database_ends_with_3(folder: Path) -> None:
    answer = jobd("check", "--database-url", f"postgresql://app:{SECRET}@127.0.0.1:1/shop", code=3)
    assert "FAIL  database: the database cannot be used now" in answer.out


def test_check_finds_an_application_that_cannot_be_imported(shell: str, folder: Path) -> None:
    (folder / "broken.py").write_text("from jobd import Jobs\n1 / 0\n")
    out = jobd("check", "--app", "broken:jobs", code=2).out
    assert "FAIL  application: JOBD_APP = 'broken:jobs': importing broken raised ZeroDivisionError" in out
    assert f"{folder}/broken.py:2" in out


def test_no_verb_prints_the_passwords_of_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "jobd.toml").write_text(
        f'[smtp]\nhost = "mail.example"\nusername = "app"\npassword = "{SECRET}"\n'
    )
    monkeypatch.setenv("JOBD_DATABASE_URL", f"postgresql://app:{SECRET}@127.0.0.1:1/shop?password={SECRET}")
    monkeypatch.setenv("JOBD_LOG_LEVEL", "debug")
    for words in (["check"], ["check", "--json"], ["list"], ["enqueue", "tidy"]):
        answer = jobd(*words, code=3)
        assert SECRET not in answer.out + answer.err


def test_check_of_a_folder_without_a_database_makes_none(folder: Path) -> None:
    assert "would make an embedded PostgreSQL in .jobd/" in jobd("check").out
    assert not (folder / ".jobd").exists()


def test_health_without_a_daemon_is_unhealthy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_HTTP_PORT", "1")
    answer = jobd("health", code=1)
    assert answer.out.splitlines()[0] == "unhealthy"
    assert "no answer from 127.0.0.1 port 1" in answer.out
    # Without options the container's HEALTHCHECK takes a shorter way; it says the same.
    bare = jobd_process("health", check=False)
    assert (bare.returncode, bare.stdout) == (1, answer.out)


def test_health_asks_this_machine_where_the_daemon_listens_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "jobd.toml").write_text('http_host = "0.0.0.0"\nhttp_port = 1\n')
    assert jobd("health", "--json", code=1).json["reasons"][0].startswith("no answer from 127.0.0.1 port 1:")
