"""What a user can type wrong, and what they are told: one readable block, an exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edges.command import jobd, jobd_process

GALLERY = """
from jobd import Jobs

jobs = Jobs()
other = 1

@jobs.handler
async def resize(key: str) -> None: ...
"""

LEAKY = """
from jobd import Jobs

jobs = Jobs()

@jobs.lifespan
async def bucket():
    raise RuntimeError("no bucket")
    yield
"""

TWICE = """
from jobd import Jobs

jobs = Jobs()

@jobs.handler("a")
def first(): ...

@jobs.handler("a")
def second(): ...
"""

TYPED = [
    (["enqueue", "resize", "{'key': 1}"], "payload line 1 column 2: is not JSON"),
    (["enqueue", "resize", '{"n": NaN}'], "payload $.n"),
    (["enqueue", "resize", '{"t": "\\u0000"}'], "payload $.t"),
    (["enqueue", "re size"], "'re size'"),
    (["enqueue", "resize", "--in", "soon"], "--in = 'soon': is not a duration"),
    (["enqueue", "resize", "--in", "-5s"], "--in = '-5s'"),
    (["enqueue", "resize", "--at", "noon"], "--at = 'noon': is not an instant"),
    (
        ["enqueue", "resize", "--at", "2099-01-01", "--in", "5s"],
        "--at = '2099-01-01': and --in both say when",
    ),
    (["enqueue", "resize", "--timeout", "5s"], "add --wait"),
    (["enqueue", "resize", "--queue", "a b"], "'a b'"),
    (["enqueue", "resize", "--tenant", "t" * 256], "--tenant = "),
    (["enqueue", "resize", "--max-attempts", "0"], "--max-attempts"),
    (["enqueue", "resize", "--id", "17"], "valid UUID"),
    (["enqueue"], "Missing argument 'KIND'"),
    (["show", "17"], "valid UUID"),
    (["list", "--state", "late"], "'late' is not one of"),
    (["list", "--limit", "1001"], "1000"),
    (["reschedule", "0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10"], "say what changes"),
    (["reschedule", "0192f0c1-22e5-7d3c-8a54-5f1f3a1f9f10", "--now", "--in", "5s"], "both say when"),
    (["migrate", "--check", "--sql"], "exclude each other"),
    (["migrate", "--json"], "add --check"),
    (["run", "--concurrency", "0"], "--concurrency = 0"),
    (["run", "--lease", "soon"], "--lease = 'soon'"),
    (["run", "--only", "boss"], "'boss' is not one of"),
    (["run", "--app", "gallery"], "--app = 'gallery': must be \"module:attribute\""),
    (["run", "--app", "galery:jobs"], "there is no module galery; did you mean gallery:jobs?"),
    (["run", "--app", "gallery:job"], "module gallery has no 'job'; did you mean gallery:jobs?"),
    (["run", "--app", "gallery:other"], "'other' is not a Jobs but a int; did you mean gallery:jobs?"),
    (["run", "--app", "needy:jobs"], "module needy needs no_such_package, which is not installed"),
    (["run", "--app", "typo:jobs"], "importing typo raised SyntaxError"),
    (["run", "--app", "twice:jobs"], "kind 'a' already has a handler"),
    (["run", "--database-url", "mysql://u:hunter2@h/d"], "--database-url = 'mysql://u:***@h/d'"),
    (["enqueue", "resize", '{"kei": 1}', "--app", "gallery:jobs"], "payload $.kei: unexpected key"),
    (["health", "--timeout", "x"], "--timeout = 'x'"),
    (["queus"], "Did you mean 'queues'"),
]


@pytest.fixture
def modules(folder: Path) -> None:
    (folder / "gallery.py").write_text(GALLERY)
    (folder / "needy.py").write_text("import no_such_package\n")
    (folder / "typo.py").write_text("def f(:\n")
    (folder / "twice.py").write_text(TWICE)


@pytest.mark.parametrize(("words", "told"), TYPED, ids=[" ".join(words)[:40] for words, _ in TYPED])
def test_what_is_typed_wrong_is_explained(shell: str, modules: None, words: list[str], told: str) -> None:
    answer = jobd(*words, code=2)
    assert told in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_an_unreachable_database_is_named_without_its_password(folder: Path) -> None:
    answer = jobd("list", "--database-url", "postgresql://app:hunter2@127.0.0.1:1/shop", code=3)
    assert answer.err.startswith("jobd: the database cannot be used now: ")
    assert "postgresql://app:***@127.0.0.1:1/shop" in answer.err


def test_a_container_without_a_database_url_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_IN_CONTAINER", "1")
    for words in (["run"], ["enqueue", "tidy"], ["list"]):
        answer = jobd(*words, code=2)
        assert "JOBD_DATABASE_URL: a container needs a database outside it" in answer.err
    assert not (folder / ".jobd").exists()


def test_the_debug_level_adds_the_traceback(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBD_LOG_LEVEL", "debug")
    answer = jobd("enqueue", "tidy", "--in", "soon", code=2)
    assert "Traceback (most recent call last)" in answer.err


def test_an_error_of_the_application_is_one_block_with_its_place(shell: str, folder: Path) -> None:
    (folder / "leaky.py").write_text(LEAKY)
    done = jobd_process("run", "--app", "leaky:jobs", "--http-port", 0, check=False)
    assert done.returncode == 1
    assert f"jobd: RuntimeError: no bucket (raised at {folder}/leaky.py:8)" in done.stderr
    assert "Traceback" not in done.stderr
