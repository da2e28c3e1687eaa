"""Log lines: JSON when nobody watches, readable on a terminal; one configuration for all of Python's.

Loggers are structlog's over the standard library's, without touching structlog's global
configuration: inside another application jobd's lines go where that application sends its own, and
`configure_logs` is for processes that are jobd's. Rendering happens in the handler, so a line below
the level costs next to nothing. What to log, and that no payload is ever in it, is up to the
subscribers of `events`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

from jobd.job import CURRENT
from jobd.payload import encode_result, storable_text
from jobd.redaction import hide_passwords

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

_MAX_LINE: Final = 65_536
_MAX_TRACE: Final = 16_000
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


def get_logger(name: str, **fields: Any) -> BoundLogger:
    """A logger whose lines carry `fields`; `.bind(...)` adds more.

    Obeys the level and the handlers of the standard logger `name`, whoever configured them.
    """
    import structlog

    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _to_standard,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger.bind(**fields)


def configure_logs(level: str, *, stream: TextIO | None = None, process: int | None = None) -> LineHandler:
    """Send every log line of this process to `stream` (stderr), at `level` and above.

    For processes that are jobd's own. Replaces what an earlier call, or a plain `basicConfig`, had
    set up. `process` is shown in each line, where several processes share a stream. The handler that is
    returned counts the lines it lost.
    """
    _import_structlog_without_rich()
    return write_lines(level, stream=stream, process=process)


def write_lines(level: str, *, stream: TextIO | None = None, process: int | None = None) -> LineHandler:
    """`configure_logs` for a process without structlog; its own lines are `line`s."""
    handler = LineHandler(sys.stderr if stream is None else stream, process=process)
    root = logging.getLogger()
    for other in list(root.handlers):
        # Subclasses stay: they are somebody's deliberate choice, such as a test's capture.
        if type(other) in (logging.StreamHandler, LineHandler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for library in ("asyncio", "uvicorn"):
        # What they tell below a warning is about themselves.
        logging.getLogger(library).setLevel(max(root.level, logging.WARNING))
    return handler


def line(event: str, /, **fields: Any) -> object:
    """A message with fields, for a logger of the standard library: `logger.info(line("started", pid=7))`."""
    return _Line({"event": event, **fields})


class LineHandler(logging.Handler):
    """Writes one line a record, and never raises: a log that cannot be written is counted as lost.

    Neither a reader that went away nor a full disk may end a daemon that is running jobs.
    """

    def __init__(self, stream: TextIO, *, process: int | None = None) -> None:
        super().__init__()
        self.lost = 0
        self._process = process
        self._stream = stream
        try:
            terminal = stream.isatty()
        except (OSError, ValueError):
            terminal = False
        self._colours = terminal and "NO_COLOR" not in os.environ
        self._render = self._readable if terminal else _json_line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = _fields_of(record)
            if self._process is not None:
                fields.setdefault("process", self._process)
            text = self._render(fields)
            try:
                self._stream.write(text + "\n")
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "backslashreplace").decode() + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self.lost += 1
            self._give_up()
        except Exception:
            self.lost += 1

    def _give_up(self) -> None:
        # Python flushes the stream once more when it exits, and would end with code 120 over a pipe
        # that nobody reads any more.
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        except (OSError, ValueError):
            pass

    def _readable(self, fields: dict[str, Any]) -> str:
        """`12:03:04.123 warning  engine.finisher  flush was slow  seconds=1.2`, then a traceback."""
        clock = fields.pop("timestamp")[11:23]
        level = fields.pop("level")
        name = fields.pop("logger").removeprefix("jobd.")
        trace = fields.pop("exception", None)
        shown = f"{level:<8}"
        if self._colours:
            shown = f"\x1b[{_COLOURS.get(level, '0')}m{shown}\x1b[0m"
        parts = [clock, shown, _printable(name) + " ", _printable(str(fields.pop("event")))]
        lines = ["  ".join([" ".join(parts), *(_pair(key, value) for key, value in fields.items())])]
        if trace:
            lines += ["    " + _printable(row) for row in trace.rstrip().split("\n")]
        return "\n".join(lines)


class _Line:
    """A log record's message that still knows its fields; other handlers see it as text."""

    __slots__ = ("fields",)

    def __init__(self, fields: MutableMapping[str, Any]) -> None:
        self.fields = fields

    def __str__(self) -> str:
        rest = (_pair(key, value) for key, value in self.fields.items() if key != "event")
        return " ".join([_printable(str(self.fields.get("event", ""))), *rest])


def _to_standard(
    logger: Any, method: str, fields: MutableMapping[str, Any]
) -> tuple[tuple[_Line], dict[str, Any]]:
    passed = {name: fields.pop(name) for name in ("exc_info", "stack_info") if name in fields}
    if isinstance(passed.get("exc_info"), BaseException):
        error = passed["exc_info"]
        passed["exc_info"] = (type(error), error, error.__traceback__)
    return (_Line(fields),), passed


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    if isinstance(record.msg, _Line):
        # Ours win: a line must not be able to pass for another logger's, or another time's.
        fields |= {key: value for key, value in record.msg.fields.items() if key not in fields}
    else:
        fields["event"] = record.getMessage()
    if (job := CURRENT.get()) is not None:
        about = {"job_id": str(job.id), "kind": job.kind, "queue": job.queue, "attempt": job.attempt}
        fields |= {key: value for key, value in about.items() if key not in fields}
    fields = {key: _presentable(value) for key, value in fields.items()}
    trace = _trace(record.exc_info)
    if trace:
        fields["exception"] = storable_text(hide_passwords(trace), max_chars=_MAX_TRACE)
    return fields


def _presentable(value: object) -> object:
    if isinstance(value, (int, float, dict, list, tuple)) or value is None:
        return value
    try:
        return hide_passwords(str(value))
    except Exception as error:
        return f"<{type(value).__name__}: its __str__ raised {type(error).__name__}>"


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def _trace(exc_info: _ExcInfo | None) -> str:
    if not exc_info or exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(exc_info[1]))


def _json_line(fields: dict[str, Any]) -> str:
    text, _ = encode_result(fields, max_bytes=_MAX_LINE)
    if not text.isascii():
        # Escaped, so that neither a C1 control nor a right-to-left override reaches a terminal.
        text = json.dumps(json.loads(text), separators=(",", ":"))
    return text


def _pair(key: object, value: object) -> str:
    shown = str(_presentable(value))
    if isinstance(value, str) and (" " in value or not value.isprintable() or not value):
        shown = json.dumps(shown)
    return f"{_printable(str(key))}={_printable(shown)}"


def _printable(text: str) -> str:
    """`text` in one line that cannot move a cursor: what is not printable is escaped."""
    if len(text) > _MAX_TRACE:
        text = storable_text(text, max_chars=_MAX_TRACE)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _import_structlog_without_rich() -> None:
    # structlog imports rich for pretty tracebacks that jobd never prints: 5 MB and 0.2 s of every
    # daemon. Only here, where the process is ours: an application that embeds jobd keeps its rich.
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
