"""Settings: who wins, what is refused and in which words, and what is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobd.errors import ConfigError
from jobd.settings import (
    QueueSettings,
    Settings,
    SmtpSettings,
    TenantSettings,
    UseCaseSettings,
    explain,
    find_problems,
    load_settings,
    redact_url,
    unread_environment,
)

EXAMPLE = Path(__file__).parents[2] / "jobd.toml.example"
# Each fixed name of the environment, with a value and how that is shown.
FIXED = {
    "JOBD_DATABASE_URL": ("postgresql://h/d", "postgresql://h/d"),
    "JOBD_APP": ("shop.jobs:jobs", "shop.jobs:jobs"),
    "JOBD_CONCURRENCY": ("7", "7"),
    "JOBD_PROCESSES": ("2", "2"),
    "JOBD_LEASE": ("9s", "9s"),
    "JOBD_HEARTBEAT": ("2s", "2s"),
    "JOBD_HTTP_HOST": ("0.0.0.0", "0.0.0.0"),
    "JOBD_HTTP_PORT": ("0", "0"),
    "JOBD_LOG_LEVEL": ("ERROR", "error"),
    "JOBD_POLL_INTERVAL": ("2s", "2s"),
    "JOBD_NOTIFY": ("off", "off"),
    "JOBD_SHUTDOWN_GRACE": ("1m", "1m"),
    "JOBD_DEFAULT_TIMEOUT": ("90", "1m30s"),
    "JOBD_CRASH_LIMIT": ("0", "0"),
    "JOBD_MIGRATE": ("check", "check"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and no JOBD_ variables."""
    for name in [name for name in os.environ if name.upper().startswith("JOBD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source_of(settings: Settings, name: str) -> str:
    return next(shown.source for shown in explain(settings) if shown.name == name)


def test_without_anything_every_setting_has_its_default() -> None:
    settings = load_settings()
    assert settings.database_url is None
    assert (settings.concurrency, settings.processes, settings.crash_limit) == (100, 1, 3)
    assert (settings.lease, settings.heartbeat) == (timedelta(seconds=30), timedelta(seconds=10))
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8642)
    assert settings.default_timeout == timedelta(minutes=15)
    assert (settings.max_payload, settings.max_result) == (262_144, 1_048_576)
    assert settings.notify is True
    assert {shown.source for shown in explain(settings)} == {"default"}


def test_the_file_gives_way_to_the_environment_and_that_to_an_override(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "jobd.toml").write_text('concurrency = 1\nhttp_port = 1\nlog_level = "debug"\n')
    monkeypatch.setenv("JOBD_CONCURRENCY", "2")
    monkeypatch.setenv("JOBD_HTTP_PORT", "2")
    settings = load_settings(concurrency=3)
    assert (settings.concurrency, settings.http_port, settings.log_level) == (3, 2, "debug")
    sources = [source_of(settings, name) for name in ("concurrency", "http_port", "log_level", "app")]
    assert sources == ["flag", "environment", "jobd.toml", "default"]


def test_every_fixed_name_of_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (value, _) in FIXED.items():
        monkeypatch.setenv(name, value)
    lines = {line.name: line for line in explain(load_settings())}
    for name, (_, shown) in FIXED.items():
        line = lines[name.removeprefix("JOBD_").lower()]
        assert (line.value, line.source) == (shown, "environment")


def test_an_override_of_none_and_an_empty_variable_count_as_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOBD_DATABASE_URL", "")
    settings = load_settings(concurrency=None)
    assert (settings.database_url, settings.concurrency) == (None, 100)


def test_jobd_config_names_another_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other.toml").write_text("concurrency = 8\n[queues.images]\nconcurrency = 2\n")
    monkeypatch.setenv("JOBD_CONFIG", "other.toml")
    settings = load_settings()
    assert (settings.concurrency, settings.queues["images"].concurrency) == (8, 2)


def test_tables_are_merged_over_the_sources(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "jobd.toml").write_text(
        '[smtp]\nhost = "mail"\nusername = "u"\n[queues.images]\nconcurrency = 2\n[queues."a.b"]\n'
    )
    monkeypatch.setenv("JOBD_SMTP__PASSWORD", "hunter2")
    monkeypatch.setenv("JOBD_QUEUES__FAST__CONCURRENCY", "50")
    settings = load_settings()
    assert (settings.smtp.host, settings.smtp.username) == ("mail", "u")
    assert settings.smtp.password is not None
    assert settings.smtp.password.get_secret_value() == "hunter2"
    assert {name: queue.concurrency for name, queue in settings.queues.items()} == {
        "images": 2,
        "a.b": None,
        "fast": 50,
    }


def test_a_shorter_lease_alone_shortens_the_beats() -> None:
    settings = load_settings(database_url="postgresql://h/d", lease="5s")
    assert settings.lease == timedelta(seconds=5)
    assert 3 * settings.heartbeat <= settings.lease < 3.1 * settings.heartbeat
    assert load_settings(lease="10m").heartbeat == timedelta(seconds=10)


def test_a_server_that_speaks_tls_at_once_has_the_port_for_it() -> None:
    assert load_settings(smtp={"tls": "tls"}).smtp.port == 465
    assert load_settings(smtp={"tls": "tls", "port": 2_465}).smtp.port == 2_465


@pytest.mark.parametrize(
    ("written", "meant"), [(True, True), ("on", True), ("OFF", False), ("false", False), ("1", True)]
)
def test_notify_is_on_or_off(written: object, meant: bool) -> None:
    assert load_settings(notify=written).notify is meant


@pytest.mark.parametrize(
    ("written", "meant"), [(True, "on"), (False, "off"), ("AUTO", "auto"), ("true", "on"), ("off", "off")]
)
def test_prepared_statements_are_auto_on_or_off(written: object, meant: str) -> None:
    assert load_settings(prepared_statements=written).prepared_statements == meant


@pytest.mark.parametrize(
    ("written", "size"), [("256KiB", 262_144), (" 1 MiB", 1_048_576), ("10kB", 10_000), (2_048, 2_048)]
)
def test_a_size_is_read_with_its_unit(written: object, size: int) -> None:
    assert load_settings(max_payload=written).max_payload == size


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().concurrency = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environment", "file", "message"),
    [
        ({"JOBD_LEASE": "5x"}, "", "JOBD_LEASE = '5x': is not a duration; write it like \"30s\""),
        ({"JOBD_LEASE": "1ms"}, "", "JOBD_LEASE = '1ms': must be from 500ms to 1d"),
        ({"JOBD_HISTORY_RETENTION": "12h"}, "", "JOBD_HISTORY_RETENTION = '12h': must be from 1d to 36525d"),
        ({"JOBD_SHUTDOWN_GRACE": "-5s"}, "", "JOBD_SHUTDOWN_GRACE = '-5s': must not be negative"),
        ({"JOBD_CONCURRENCY": "many"}, "", "JOBD_CONCURRENCY = 'many': must be a whole number"),
        ({"JOBD_CONCURRENCY": "0"}, "", "JOBD_CONCURRENCY = '0': must be greater than or equal to 1"),
        ({"JOBD_PROCESSES": "0"}, "", "JOBD_PROCESSES = '0': must be greater than or equal to 1"),
        ({"JOBD_CRASH_LIMIT": "-1"}, "", "JOBD_CRASH_LIMIT = '-1': must be greater than or equal to 0"),
        ({"JOBD_HTTP_PORT": "99999"}, "", "JOBD_HTTP_PORT = '99999': must be less than or equal to 65535"),
        ({"JOBD_LOG_LEVEL": "loud"}, "", "JOBD_LOG_LEVEL = 'loud': must be 'debug', 'info', 'warning'"),
        ({"JOBD_MIGRATE": "yes"}, "", "JOBD_MIGRATE = 'yes': must be 'auto', 'check' or 'off'"),
        ({"JOBD_NOTIFY": "maybe"}, "", "JOBD_NOTIFY = 'maybe': must be on or off"),
        ({"JOBD_APP": "shop"}, "", "JOBD_APP = 'shop': must be \"module:attribute\""),
        ({"JOBD_MAX_PAYLOAD": "lots"}, "", "JOBD_MAX_PAYLOAD = 'lots': is not a size"),
        ({"JOBD_QUEUES": "{"}, "", "JOBD_QUEUES = '***': is not JSON; write it like"),
        ({"JOBD_QUEUES__A__CONCURRENCY": "0"}, "", "JOBD_QUEUES__A__CONCURRENCY = '0': must be greater"),
        ({"JOBD_CONFIG": "gone.toml"}, "", "JOBD_CONFIG = 'gone.toml': there is no such file"),
        ({"JOBD_DATABASE_URL": "postgresql+asyncpg://h/d"}, "", 'leave "+asyncpg" out'),
        ({"JOBD_DATABASE_URL": "mysql://h/d"}, "", "write it like postgresql://user@host:5432/name"),
        ({}, "concurrency = []", "concurrency in jobd.toml = []: must be a whole number"),
        ({}, "leese = 5", "leese in jobd.toml = '***': is not a setting; did you mean lease?"),
        ({}, "zzz = 5", "zzz in jobd.toml = '***': is not a setting; there are database_url, app"),
        (
            {},
            "[smtp]\nhots = 'a'",
            "smtp.hots in jobd.toml = '***': is not a setting; did you mean smtp.host?",
        ),
        ({}, "[queues.a]\nlimit = 1", "queues.a.limit in jobd.toml = '***': is not a setting; there are"),
        ({}, "[queues.'no good']", "queues in jobd.toml = 'no good': is not a queue's name: a letter or _"),
        ({}, "[queues.'9']", "is not a queue's name"),
        ({}, f"[queues.{'a' * 101}]", "is not a queue's name"),
        (
            {},
            "[queues.a]\nkeep = 'none'",
            "queues.a.keep in jobd.toml = 'none': must be 'all', 'errors' or 'nothing'",
        ),
        (
            {"JOBD_QUEUES__A__KEEP": "no"},
            "",
            "JOBD_QUEUES__A__KEEP = 'no': must be 'all', 'errors' or 'nothing'",
        ),
        ({}, "queues = 5", 'queues in jobd.toml = 5: must be a table, like {"images": {"concurrency": 2}}'),
        ({}, "lease = [", "jobd.toml = 'jobd.toml': is not TOML"),
        ({}, "smtp = {password = 'x'}", "smtp.password in jobd.toml = '***': needs smtp.username"),
        ({}, "smtp = {username = 'x'}", "smtp.username in jobd.toml = 'x': needs smtp.password"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_value_and_remedy(
    environment: dict[str, str], file: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "jobd.toml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings()


NIGHTLY = {"id": "nightly", "when": "30 2 * * *", "kind": "report"}


def test_a_schedule_of_the_file_has_its_options_and_says_whether_it_names_a_queue(folder: Path) -> None:
    (folder / "jobd.toml").write_text(
        "[[schedules]]\nid = 'nightly'\nwhen = '30 2 * * *'\nkind = 'report'\ntz = 'Europe/Berlin'\n"
        "payload = {n = 1}\njitter = '5s'\nqueue = 'reports'\n"
        "[[schedules]]\nid = 'launch'\nwhen = 2020-01-01T08:00:00Z\nkind = 'open'\n"
    )
    nightly, launch = load_settings().schedules
    assert (nightly.terms.owner, nightly.terms.payload, nightly.terms.queue) == ("file", {"n": 1}, "reports")
    assert (nightly.terms.time_zone, nightly.terms.jitter) == ("Europe/Berlin", timedelta(seconds=5))
    assert (nightly.queue_said, launch.queue_said) == (True, False)
    assert launch.terms.expression == "2020-01-01T08:00:00+00:00"
    lines = {line.name: line for line in explain(load_settings())}
    assert lines["schedules[0]"].value == "nightly: report at 30 2 * * * (Europe/Berlin)"
    assert lines["schedules[1]"].source == "jobd.toml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"when": "61 * * * *"},
            "schedules[1].when = '61 * * * *': minute '61' is no value from 0 to 59; write it like",
        ),
        (
            {"when": "@dayly"},
            "schedules[1].when = '@dayly': is not known; did you mean @daily? (schedule 'n')",
        ),
        ({"when": 5}, "schedules[1].when = 5: must be an expression"),
        ({"tz": "Berlin"}, "schedules[1].tz = 'Berlin': is not an IANA time zone"),
        ({"kind": "re port"}, "schedules[1].kind = 're port': is no valid name"),
        ({"queue": "a b"}, "schedules[1].queue = 'a b': is no valid name"),
        ({"jitter": "soon"}, "schedules[1].jitter = 'soon': is not a duration"),
        ({"payload": {"a": float("nan")}}, "schedules[1].payload = '***': payload $.a: is NaN"),
        ({"meta": {"a": float("nan")}}, "schedules[1].meta = '***': payload $.meta.a: is NaN"),
        ({"catchup": "all"}, "schedules[1].catchup = '***': is no key of a schedule; did you mean catch_up?"),
        ({"id": ""}, "schedules[1].id = '': must be 1 to 200 printable characters"),
        ({"id": "nightly"}, "schedules = 'nightly': is the id of two schedules; give each its own"),
        ({"backoff": "quadratic"}, "schedules[1].backoff = 'quadratic': must be one of"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_place_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings(schedules=[NIGHTLY, {**NIGHTLY, "id": "n", **changes}])


def test_a_schedule_that_lacks_a_key_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"schedules\[0\] = '\*\*\*': has no kind: a schedule needs id, when"
    ):
        load_settings(schedules=[{"id": "a", "when": "@daily"}])
    with pytest.raises(ConfigError, match=r"schedules\[0\] = 5: must be a table with id, when and kind"):
        load_settings(schedules=[5])


def test_schedules_of_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_SCHEDULES", '[{"id": "n", "when": "@dayly", "kind": "k"}]')
    with pytest.raises(ConfigError, match=r"JOBD_SCHEDULES\[0\].when = '@dayly': is not known"):
        load_settings()
    monkeypatch.setenv("JOBD_SCHEDULES", "[{")
    with pytest.raises(ConfigError, match=r"JOBD_SCHEDULES = '\*\*\*': is not JSON; write it like \[\{"):
        load_settings()


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"concurency = .* did you mean concurrency"):
        load_settings(concurency=4)


def test_a_lease_of_less_than_three_beats_names_both_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBD_LEASE", "5s")
    monkeypatch.setenv("JOBD_HEARTBEAT", "10s")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value) == (
        "JOBD_LEASE = '5s': must be at least three beats (JOBD_HEARTBEAT is 10s); "
        "raise it to 30s or lower the beat to 1.666s"
    )
    monkeypatch.delenv("JOBD_HEARTBEAT")
    (folder / "jobd.toml").write_text('heartbeat = "4s"')
    with pytest.raises(ConfigError, match=r"JOBD_LEASE = '5s': .* \(heartbeat in jobd.toml is 4s\)"):
        load_settings()
    with pytest.raises(ConfigError, match=r"lease = '30s': .* \(heartbeat is 20s\); raise it to 1m"):
        load_settings(lease="30s", heartbeat="20s")


def test_a_lease_of_exactly_three_beats_is_enough() -> None:
    assert load_settings(lease="6s", heartbeat="2s").heartbeat == timedelta(seconds=2)


def test_a_pool_of_one_connection_names_both_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_POOL_SIZE", "1")
    with pytest.raises(ConfigError, match=r"JOBD_POOL_SIZE = '1': must be at least 2: .* concurrency = 100"):
        load_settings()


def test_a_password_is_not_sent_in_the_clear_to_another_machine() -> None:
    smtp = {"username": "u", "password": "hunter2", "tls": "none"}
    assert load_settings(smtp=smtp | {"host": "localhost"}).smtp.tls == "none"
    with pytest.raises(ConfigError, match=r"smtp\.tls = 'none': would send smtp.password in the clear"):
        load_settings(smtp=smtp | {"host": "mail.example.com"})


def test_all_problems_are_found_at_once(folder: Path) -> None:
    (folder / "jobd.toml").write_text("concurrency = 0\nleese = 1\n[smtp]\nport = 0\n")
    assert [problem.setting for problem in find_problems()] == [
        "concurrency in jobd.toml",
        "smtp.port in jobd.toml",
        "leese in jobd.toml",
    ]
    (folder / "jobd.toml").write_text("concurrency = 1\n")
    assert find_problems() == []


SECRETS: list[dict[str, Any]] = [
    {"database_url": "postgresql://u:hunter2@h/d"},
    {"database_url": "postgresql://u:hun@ter/hunter2@h/d"},
    {"database_url": "postgresql://h/d?user=u&password=hunter2"},
    {"database_url": "mysql://u:hunter2@h/d"},
    {"database_url": "host=h password=hunter2"},
    {"database_url": "hunter2"},
    {"databse_url": "postgresql://u:hunter2@h/d"},
    {"smtp": {"username": "u", "password": "hunter2"}},
    {"smtp": {"pasword": "hunter2"}},
    {"smtp": {"username": "u", "password": "hunter2", "port": 0}},
    {"smtp": "hunter2"},
]


@pytest.mark.parametrize("overrides", SECRETS, ids=str)
def test_no_secret_is_ever_shown(overrides: dict[str, Any]) -> None:
    problems = find_problems(**overrides)
    shown = "\n".join([*map(str, problems), *map(repr, problems)])
    if not problems:
        settings = load_settings(**overrides)
        shown = f"{explain(settings)} {settings.smtp!r}"
        assert "***" in shown
    assert "hunter2" not in shown


def test_a_url_is_shown_without_its_password() -> None:
    assert (
        redact_url("postgresql://u:x@h:5432/d?sslmode=require")
        == "postgresql://u:***@h:5432/d?sslmode=require"
    )
    assert redact_url("postgresql://u@h/d") == "postgresql://u@h/d"


def test_a_misspelt_variable_is_pointed_out_and_a_foreign_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_CONCURENCY", "4")
    monkeypatch.setenv("JOBD_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("JOBD_QUEUES__A__CONCURRENCY", "4")
    monkeypatch.setenv("JOBD_LEASE", "30s")
    assert unread_environment() == [("JOBD_CONCURENCY", "JOBD_CONCURRENCY")]
    load_settings()


def test_a_misspelt_table_in_the_environment_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_QUEUE__MAIL__RATE", "5/m")
    monkeypatch.setenv("JOBD_QUEUES__MAIL__BURST", "5")
    assert unread_environment() == [("JOBD_QUEUE__MAIL__RATE", "JOBD_QUEUES__MAIL__RATE")]


def test_the_example_file_gives_the_defaults() -> None:
    example = load_settings(**tomllib.loads(EXAMPLE.read_text()))
    assert example.model_dump() == load_settings().model_dump()


def test_the_example_file_documents_every_setting_once() -> None:
    # What has no default, and the table of a queue, stands there as a comment.
    uncommented = re.sub(r"^# (?=\w+ = |\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    example = tomllib.loads(uncommented)
    assert set(example) == set(Settings.model_fields)
    assert set(example["smtp"]) == set(SmtpSettings.model_fields)
    assert set(example["queues"]["images"]) == set(QueueSettings.model_fields)
    assert set(example["tenants"]["t1"]) == set(TenantSettings.model_fields)
    assert set(example["use_cases"]["labels"]) == set(UseCaseSettings.model_fields)
    assert find_problems(**example) == []


def test_pydantic_settings_is_imported_by_the_settings_alone() -> None:
    program = (
        "import sys, jobd, jobd.payload, jobd.backoff, jobd.ids, jobd.logs\n"
        "heavy = {'pydantic', 'pydantic_settings', 'structlog', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_limits_of_queues_tenants_and_use_cases_come_from_the_file(folder: Path) -> None:
    (folder / "jobd.toml").write_text(
        '[queues.mail]\nmax_running = 10\nrate = "60/60s"\nburst = 5\nfair = true\nweight = 2\n'
        '[tenants."acme corp"]\nmax_pending = 100\non_full = "shed"\nexact = false\n'
        "[use_cases.labels]\nmax_running = 3\n"
    )
    settings = load_settings()
    mail, acme = settings.queues["mail"], settings.tenants["acme corp"]
    assert (mail.max_running, mail.rate, mail.burst, mail.fair, mail.weight) == (10, "60/m", 5, True, 2)
    assert (acme.max_pending, acme.on_full, acme.exact, acme.max_running) == (100, "shed", False, None)
    assert settings.use_cases["labels"].max_running == 3
    assert source_of(settings, "queues.mail.max_running") == "jobd.toml"
    assert source_of(settings, "tenants.acme corp.max_pending") == "jobd.toml"


def test_quotas_of_tenants_come_from_the_environment_in_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "ASYNC_JOBS_PER_TENANT_QUOTAS",
        '{"tenant1": {"max_pending_jobs": 100}, "T2": {"max_pending_jobs": 5}}',
    )
    settings = load_settings()
    assert {id: said.max_pending for id, said in settings.tenants.items()} == {"tenant1": 100, "T2": 5}
    assert source_of(settings, "tenants.tenant1.max_pending") == "environment"
    monkeypatch.setenv("JOBD_TENANTS", '{"tenant1": {"max_pending_jobs": 7}, "t3": {"max_running": 1}}')
    settings = load_settings()
    assert {id: said.max_pending for id, said in settings.tenants.items()} == {
        "tenant1": 7,
        "T2": 5,
        "t3": None,
    }


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            "{",
            "ASYNC_JOBS_PER_TENANT_QUOTAS = '{': is no JSON object; write it like {\"tenant1\"",
        ),
        ("ASYNC_JOBS_PER_TENANT_QUOTAS", '{"a":' * 20_000, 'ASYNC_JOBS_PER_TENANT_QUOTAS = \'{"a":'),
        ("ASYNC_JOBS_PER_TENANT_QUOTAS", "[]", "ASYNC_JOBS_PER_TENANT_QUOTAS = '[]': is no JSON object"),
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            '{"t1": {"max_pending_jobs": "many"}}',
            "t1.max_pending_jobs in ASYNC_JOBS_PER_TENANT_QUOTAS = 'many': must be a whole number",
        ),
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            '{"t1": {"colour": 1}}',
            "t1.colour in ASYNC_JOBS_PER_TENANT_QUOTAS = '***': is not a setting; there are max_pending_jobs",
        ),
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            '{"t1": 5}',
            't1 in ASYNC_JOBS_PER_TENANT_QUOTAS = 5: must be a table, like {"max_pending_jobs": 100}',
        ),
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            '{"t1": {"max_pendng_jobs": 1}}',
            "is not a setting; did you mean t1.max_pending_jobs?",
        ),
        (
            "JOBD_TENANTS",
            '{"t1": {"max_pending": true}}',
            "JOBD_TENANTS__T1__MAX_PENDING = True: must be a whole number",
        ),
        ("JOBD_TENANTS", '{"t1": 5}', 'JOBD_TENANTS__T1 = 5: must be a table, like {"max_pending": 100}'),
        ("JOBD_QUEUES", '{"a": 3}', 'JOBD_QUEUES__A = 3: must be a table, like {"concurrency": 2}'),
        (
            "ASYNC_JOBS_PER_TENANT_QUOTAS",
            '{"t1": {"max_pending_jobs": true}}',
            "t1.max_pending_jobs in ASYNC_JOBS_PER_TENANT_QUOTAS = True: must be a whole number",
        ),
        ("JOBD_QUEUES", '{"a": {"weight": true}}', "JOBD_QUEUES__A__WEIGHT = True: must be a whole number"),
        (
            "JOBD_TENANTS",
            "{",
            'JOBD_TENANTS = \'***\': is not JSON; write it like {"t1": {"max_pending": 100}}',
        ),
        (
            "JOBD_TENANTS__T1__MAX_PENDING",
            "-1",
            "JOBD_TENANTS__T1__MAX_PENDING = '-1': must be greater than or equal to 0",
        ),
    ],
)
def test_bad_quotas_are_refused_by_the_name_of_their_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings()


@pytest.mark.parametrize(
    ("quotas", "tenants", "name"),
    [
        (-1, 1, "t1.max_pending_jobs in ASYNC_JOBS_PER_TENANT_QUOTAS = -1: "),
        (1, -1, "JOBD_TENANTS__T2__MAX_PENDING = -1: "),
    ],
)
def test_of_two_variables_with_quotas_the_one_is_named_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, quotas: int, tenants: int, name: str
) -> None:
    quota = f'{{"max_pending_jobs": {quotas}}}'
    monkeypatch.setenv("ASYNC_JOBS_PER_TENANT_QUOTAS", f'{{"t1": {quota}, "t2": {quota}}}')
    monkeypatch.setenv("JOBD_TENANTS", f'{{"t2": {{"max_pending": {tenants}}}}}')
    with pytest.raises(ConfigError, match=f"^{re.escape(name)}"):
        load_settings()


def test_of_two_variables_with_quotas_the_one_is_named_that_has_an_impossible_tenant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASYNC_JOBS_PER_TENANT_QUOTAS", '{"": {"max_pending_jobs": 1}}')
    monkeypatch.setenv("JOBD_TENANTS", '{"t2": {"max_pending": 1}}')
    with pytest.raises(ConfigError, match=r"^ASYNC_JOBS_PER_TENANT_QUOTAS = '': must be 1 to 255"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[queues.a]\nrate = "fast"', "queues.a.rate in jobd.toml = 'fast': is not a rate; write it like"),
        (
            "[queues.a]\nburst = 5",
            "queues.a.burst in jobd.toml = 5: belongs to a rate; set queues.a.rate, too",
        ),
        ("[queues.a]\nweight = 0", "queues.a.weight in jobd.toml = 0: must be greater than or equal to 1"),
        ("[queues.a]\nfair = 'yes'", "queues.a.fair in jobd.toml = 'yes': must be on or off"),
        ("[queues.a]\nmax_runing = 1", "is not a setting; did you mean queues.a.max_running?"),
        (
            "[tenants.a]\non_full = 'drop'",
            "tenants.a.on_full in jobd.toml = 'drop': must be 'refuse', 'shed' or 'delay'",
        ),
        ("[tenants.a]\nmax_pendng = 1", "is not a setting; did you mean tenants.a.max_pending?"),
        ("[tenants.'']", "tenants in jobd.toml = '': must be 1 to 255 bytes"),
        (
            "[use_cases.a]\nmax_running = 'x'",
            "use_cases.a.max_running in jobd.toml = 'x': must be a whole number",
        ),
    ],
)
def test_bad_limits_are_refused_by_name(folder: Path, text: str, message: str) -> None:
    (folder / "jobd.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_settings()
