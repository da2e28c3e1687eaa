"""Log lines: their two shapes, and that nothing in a line can break one or end the process."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobd.logs import LineHandler, configure_logs, get_logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_when_nobody_watches() -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    log = get_logger("jobd.executor", kind="email").bind(attempt=2)
    log.info("job failed", error="ValueError")
    (line,) = json_lines(stream)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "jobd.executor",
        "event": "job failed",
        "kind": "email",
        "attempt": 2,
        "error": "ValueError",
    }


def test_lines_are_readable_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logs("info", stream=stream)
    get_logger("jobd.executor").warning("job failed", kind="email", note="two words", empty="")
    (line,) = stream.getvalue().splitlines()
    assert line[12:] == ' warning  executor  job failed  kind=email  note="two words"  empty=""'


def test_a_level_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configure_logs("info", stream=stream)
    get_logger("jobd").error("no")
    assert "\x1b[31merror" in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logs("warning", stream=stream)
    get_logger("jobd").info("quiet")
    get_logger("jobd").warning("loud")
    assert [line["event"] for line in json_lines(stream)] == ["loud"]


def test_lines_of_the_standard_library_come_out_the_same_way() -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    logging.getLogger("shop.jobs").info("sent %d mails", 3)
    (line,) = json_lines(stream)
    assert (line["logger"], line["event"]) == ("shop.jobs", "sent 3 mails")


def test_configuring_twice_writes_each_line_once() -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    configure_logs("info", stream=stream)
    get_logger("jobd").info("once")
    assert len(json_lines(stream)) == 1


def test_inside_another_application_lines_go_where_its_own_go(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        get_logger("jobd.engine").info("job failed", kind="email", note="two words")
    assert caplog.messages == ['job failed kind=email note="two words"']


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_an_exception_comes_with_its_traceback(stream_type: type[io.StringIO]) -> None:
    stream = stream_type()
    configure_logs("info", stream=stream)
    try:
        raise ValueError("odd")
    except ValueError as error:
        get_logger("jobd").exception("broke")
        get_logger("jobd").error("broke", exc_info=error)
        logging.getLogger("other").exception("broke")
    assert stream.getvalue().count("ValueError: odd") == 3
    assert "broke" in stream.getvalue()


HOSTILE = [
    'x\n{"level":"error","event":"forged"}',
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\u202etxt.exe",
    "\u2028line",
    "a\rb\0c",
    "\ud800",
    "é\N{GRINNING FACE}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_can_forge_a_json_line_or_reach_the_terminal(text: str) -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    get_logger("jobd").info(text, value=text, **{text: 1})
    get_logger("jobd").info("nested", value={"inner": [text]})
    logging.getLogger(text).info(text)
    try:
        raise ValueError(text)
    except ValueError:
        get_logger("jobd").exception("broke")
    assert len(json_lines(stream)) == 4
    assert stream.getvalue().replace("\n", "").isascii()
    assert stream.getvalue().replace("\n", "").isprintable()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_can_forge_a_readable_line_or_move_the_cursor(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure_logs("info", stream=stream)
    get_logger("jobd").info(text, value=text, nested=[text], **{text: 1})
    logging.getLogger(text).info(text)
    assert len(stream.getvalue().splitlines()) == 2
    assert stream.getvalue().replace("\n", "").isprintable()
    try:
        raise ValueError(text)
    except ValueError:
        get_logger("jobd").exception("broke")
    # A traceback is indented, so that no line of it passes for one of ours.
    assert all(line.startswith("    ") for line in stream.getvalue().splitlines()[3:])
    assert stream.getvalue().replace("\n", "").isprintable()


def test_a_field_cannot_change_the_time_the_level_or_the_logger() -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    get_logger("jobd").info("x", level="critical", logger="root", timestamp="1970")
    (line,) = json_lines(stream)
    assert (line["level"], line["logger"]) == ("info", "jobd")
    assert line["timestamp"] != "1970"


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_passwords_of_urls_are_hidden(stream_type: type[io.StringIO]) -> None:
    stream = stream_type()
    configure_logs("info", stream=stream)
    url = "postgresql://u:hunter2@h/d"
    get_logger("jobd").info(f"connecting to {url}", url=url, error=OSError(f"no route to {url}"))
    logging.getLogger("other").info("password=hunter2 for %s", url)
    try:
        raise OSError(f"cannot reach {url}")
    except OSError:
        get_logger("jobd").exception("broke")
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("u:***@h/d") >= 5


def test_a_very_long_line_is_cut() -> None:
    stream = io.StringIO()
    configure_logs("info", stream=stream)
    get_logger("jobd").info("x" * 1_000_000)
    (line,) = json_lines(stream)
    assert len(stream.getvalue()) < 70_000
    assert line["truncated"] is True


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_a_value_that_cannot_be_written_is_named(stream_type: type[io.StringIO]) -> None:
    stream = stream_type()
    handler = configure_logs("info", stream=stream)
    get_logger("jobd").info("x", value=Mute())
    assert "Mute: its __str__ raised RuntimeError" in stream.getvalue()
    assert handler.lost == 0


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")]
)
def test_a_log_that_cannot_be_written_is_counted_and_nothing_else(error: Exception) -> None:
    handler = configure_logs("info", stream=Broken(error))
    get_logger("jobd").info("x")
    assert handler.lost == 1


def test_a_message_that_does_not_fit_its_arguments_is_counted_and_nothing_else() -> None:
    handler = LineHandler(io.StringIO())
    handler.emit(logging.makeLogRecord({"msg": "%d", "args": ("x",), "name": "other", "levelname": "INFO"}))
    assert handler.lost == 1


def test_an_encoding_that_lacks_a_character_gets_it_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: True  # type: ignore[method-assign]
    handler = LineHandler(stream)
    handler.emit(logging.makeLogRecord({"msg": "Zoë", "name": "jobd", "levelname": "INFO"}))
    assert b"Zo\\xeb" in raw.getvalue()
    assert handler.lost == 0


def test_a_process_whose_log_reader_went_away_goes_on_and_exits_cleanly() -> None:
    program = (
        "import sys\n"
        "from jobd.logs import configure_logs, get_logger\n"
        "handler = configure_logs('info')\n"
        "sys.stdin.read()\n"
        "for _ in range(5): get_logger('jobd').info('x' * 5_000)\n"
        "print(handler.lost)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        out, _ = process.communicate(b"")
    assert process.returncode == 0
    assert int(out) >= 1


def test_configuring_logs_does_not_import_rich() -> None:
    program = (
        "import sys\n"
        "from jobd.logs import configure_logs, get_logger\n"
        "configure_logs('info')\n"
        "get_logger('jobd').info('x')\n"
        "assert 'rich' not in sys.modules\n"
        "import rich.console"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
