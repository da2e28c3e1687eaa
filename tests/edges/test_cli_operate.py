"""The verbs for operators: migrate, check, queues, workers, health."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from jobd.cli import session
from jobd.door import Link
from jobd.migrate import needed_version, script
from tests.edges.command import in_database, jobd, jobd_process
from tests.factories import make_job, make_worker
from tests.postgres import PostgresServer

SECRET = "hunter2"

APP = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("resize", queue="images")
async def resize(key: str) -> None: ...

@jobs.handler("tidy")
def tidy() -> None: ...
"""


RESOURCEFUL = """
from __future__ import annotations
from typing import TYPE_CHECKING
from jobd import Jobs

if TYPE_CHECKING:
    from bucket import Bucket

jobs = Jobs()

@jobs.handler("upload")
async def upload(bucket: Bucket, key: str) -> None: ...
"""

LIFESPAN = """
@jobs.lifespan
async def opened():
    raise RuntimeError("a check opens nothing")
    yield
"""


def application(folder: Path, database_url: str, **settings: str) -> None:
    """An application whose Jobs(...) says where the database is, in `gallery.py`."""
    given = ", ".join(
        f"{name}={value!r}" for name, value in {"database_url": database_url, **settings}.items()
    )
    (folder / "gallery.py").write_text(APP.replace("Jobs()", f"Jobs({given})"))


def test_migrate_brings_an_empty_database_up_to_date_once(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", empty_database_url)
    assert "run `jobd migrate`" in jobd("migrate", "--check", code=1).err
    assert "applied 0001_initial" in jobd("migrate").out
    again = jobd("migrate").word
    assert again == f"the schema is current: version {needed_version()}"
    assert jobd("migrate", "--check").word == again


def test_migrate_checks_for_programs_too(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", empty_database_url)
    needed = needed_version()
    lacking = {"current": False, "version": 0, "needed": needed}
    assert jobd("migrate", "--check", "--json", code=1).json == lacking
    jobd("migrate")
    assert jobd("migrate", "--check", "--json").json == {"current": True, "version": needed, "needed": needed}


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


def test_pausing_a_queue_that_nobody_knows_yet_is_done_and_said(shell: str) -> None:
    answer = jobd("queues", "pause", "imgaes")
    assert answer.word.startswith("queue imgaes is paused since")
    assert "no process and no job knows a queue 'imgaes' yet" in answer.err
    assert jobd("queues", "pause", "imgaes").err == ""


def test_pausing_a_queue_by_a_name_that_none_can_have_is_refused(shell: str) -> None:
    assert "queue 'my images' is no valid name" in jobd("queues", "pause", "my images", code=2).err
    assert jobd("queues", "list").out == ""


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


SCHEDULES = """
app = "gallery:jobs"
[[schedules]]
id = "nightly"
when = "30 2 * * *"
kind = "tidy"
[[schedules]]
id = "monthly"
when = "@monthly"
kind = "bill"
"""


def test_check_tells_what_schedules_mean_and_whether_they_have_a_handler(shell: str, folder: Path) -> None:
    (folder / "jobd.toml").write_text(SCHEDULES)
    (folder / "gallery.py").write_text(APP + '\njobs.every("15m", id="often")(tidy)\n')
    answer = jobd("check", "--json").json
    (told,) = [finding for finding in answer["findings"] if finding["about"] == "schedules"]
    lines = told["detail"].splitlines()
    assert lines[0] == "3 in the code and in jobd.toml"
    assert lines[1].startswith("monthly (file:gallery): bill, which has no handler here, ")
    assert lines[2].startswith("nightly (file:gallery): tidy, ")
    assert lines[3].startswith("often (code:gallery): tidy, ")


def test_check_finds_an_id_that_code_and_file_both_declare(shell: str, folder: Path) -> None:
    (folder / "jobd.toml").write_text(SCHEDULES)
    (folder / "gallery.py").write_text(APP + '\njobs.every("15m", id="monthly")(tidy)\n')
    out = jobd("check", code=2).out
    assert "FAIL  schedules: schedules[1].id = 'monthly': is declared by the application's code, too" in out


def test_check_finds_a_schedule_of_the_code_that_its_handler_cannot_take(shell: str, folder: Path) -> None:
    (folder / "gallery.py").write_text(APP + '\njobs.every("15m", id="often", payload={"x": 1})(tidy)\n')
    out = jobd("check", "--app", "gallery:jobs", code=2).out
    assert "FAIL  schedules: payload of schedule 'often' = '***': payload $.x: unexpected key" in out


def test_check_looks_at_the_settings_of_the_application(folder: Path, database_url: str) -> None:
    application(folder, database_url, lease="1m")
    answer = jobd("check", "--app", "gallery:jobs", "--json").json
    settings = {line["name"]: (line["value"], line["source"]) for line in answer["settings"]}
    assert settings["lease"] == ("1m", "Jobs(...)")
    assert settings["database_url"][1] == "Jobs(...)"
    assert settings["app"] == ("gallery:jobs", "flag")
    assert [finding["detail"] for finding in answer["findings"] if finding["about"] == "database"] == [
        f"answers; the schema is current (version {needed_version()})"
    ]


def test_check_finds_what_is_wrong_in_the_settings_of_the_application(shell: str, folder: Path) -> None:
    application(folder, shell, lease="1ms")
    out = jobd("check", "--app", "gallery:jobs", code=2).out
    assert "FAIL  settings: lease = '1ms': must be from 500ms to 1d (in Jobs(...))" in out


def test_check_of_an_empty_database_asks_what_a_daemon_does_about_it(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", empty_database_url)
    assert "ok    database: empty; jobd run migrates it at start (JOBD_MIGRATE=auto)" in jobd("check").out
    for mode in ("check", "off"):
        monkeypatch.setenv("JOBD_MIGRATE", mode)
        assert "FAIL  database: the database has no jobd schema yet" in jobd("check", code=1).out


def test_check_of_another_schema_version_says_what_a_daemon_does_about_it(
    folder: Path, postgres: PostgresServer, direct_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = direct_database_url.partition("@/")[2].partition("?")[0]
    postgres.execute("insert into jobd.schema_version (version, name) values (99, 'later')", name)
    monkeypatch.setenv("JOBD_DATABASE_URL", direct_database_url)
    assert "FAIL  database: the database is at schema version 99" in jobd("check", code=1).out
    monkeypatch.setenv("JOBD_MIGRATE", "off")
    assert "ok    database: at schema version 99" in jobd("check").out


def test_check_finds_a_handler_whose_annotation_cannot_be_resolved(shell: str, folder: Path) -> None:
    (folder / "gallery.py").write_text(RESOURCEFUL)
    out = jobd("check", "--app", "gallery:jobs", code=2).out
    assert (
        "FAIL  application: handler 'upload': the annotation of parameter 'bucket' cannot be resolved" in out
    )


def test_check_opens_no_lifespan_and_leaves_open_what_it_may_yield(shell: str, folder: Path) -> None:
    (folder / "gallery.py").write_text(RESOURCEFUL + LIFESPAN)
    out = jobd("check", "--app", "gallery:jobs").out
    assert "only if a lifespan yields what it asks for: handler 'upload': the annotation" in out


def test_verbs_use_the_database_of_the_application_where_nobody_else_names_one(
    folder: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application(folder, empty_database_url)
    (folder / "jobd.toml").write_text('app = "gallery:jobs"\n')
    assert "applied 0001_initial" in jobd("migrate").out
    id = jobd("enqueue", "tidy").word
    assert [job["id"] for job in jobd("list", "--json").json] == [id]
    assert [queue["queue"] for queue in jobd("queues", "list", "--json").json] == ["default"]
    assert jobd("workers", "--json").json == []
    assert jobd("cancel", id).word == f"cancelled {id}"
    assert jobd("show", id, "--json").json["state"] == "cancelled"
    assert not (folder / ".jobd").exists()


def test_verbs_do_not_import_the_application_where_the_database_is_named(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_APP", "no_such_module:jobs")
    assert jobd("list").err == "no jobs\n"
    assert jobd("list", "--database-url", shell).err == "no jobs\n"


@pytest.mark.parametrize(
    ("said", "kubernetes", "marked", "contained"),
    [
        ("", "", False, False),
        ("", "10.0.0.1", False, True),
        ("", "", True, True),
        ("0", "10.0.0.1", True, False),
        ("1", "", False, True),
    ],
)
def test_a_container_is_known_by_its_marks_unless_somebody_says(
    said: str,
    kubernetes: str,
    marked: bool,
    contained: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = tmp_path / ".containerenv"
    if marked:
        mark.touch()
    monkeypatch.setattr(session, "CONTAINER_MARKS", (tmp_path / ".dockerenv", mark))
    for name, value in (("JOBD_IN_CONTAINER", said), ("KUBERNETES_SERVICE_HOST", kubernetes)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert session.in_container() is contained


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
