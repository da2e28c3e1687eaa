"""What crosses between the daemon and the processes of its handlers, and in which form.

    daemon -> child   a call                     | stop (an empty frame)
    child -> daemon   begun (an empty frame), then what the handler returned, or raised

Pickle is safe here and only here: both ends are our own, joined by an anonymous socket pair that
nobody else can open, and what the daemon sends was validated when the call was bound. Payloads and
results in the database are JSON; nothing that comes from there is ever unpickled.
"""

from __future__ import annotations

import importlib
import pickle
import struct
from collections.abc import Callable
from typing import Any, Final

from jobd.storable import told

LENGTH: Final = struct.Struct("!Q")
_RETURNED: Final = b"+"
_RAISED: Final = b"-"


class Untransferable(Exception):
    """An argument or a result cannot be passed between processes."""


class RemoteError(Exception):
    """What a handler raised in its process, where the exception itself could not leave it."""

    def __init__(self, type_name: str, text: str) -> None:
        self.type_name = type_name
        self.text = text
        super().__init__(f"{type_name}: {text}")


class RemoteTraceback(Exception):
    """The cause of an exception that crossed: where in the child it was raised, as text."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"in the handler's process:\n\n{text}")


def frame(content: bytes) -> bytes:
    """`content` as it is sent."""
    return LENGTH.pack(len(content)) + content


def pack_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """A call of a function that can be imported by its name. Raises Untransferable."""
    name = (function.__module__, function.__qualname__)
    try:
        return pickle.dumps((*name, args, kwargs), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # an object's own __reduce__ may raise anything
        raise Untransferable(
            f"the arguments of {'.'.join(name)} cannot be passed to a process ({_brief(error)}); "
            "give the handler plain data, or run it in a thread"
        ) from error


def answer(call: bytes | bytearray) -> bytes:
    """In the child: make the call, and tell how it ended. Raises Stopped only."""
    try:
        module, qualname, args, kwargs = pickle.loads(call)
        value = _find(module, qualname)(*args, **kwargs)
    except Stopped:
        raise
    except BaseException as error:
        return _raised(error)
    try:
        return _RETURNED + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return _raised(
            Untransferable(
                f"{module}.{qualname} returned a {type(value).__name__} that cannot leave its process "
                f"({_brief(error)}); return plain data"
            )
        )


def unpack_answer(reply: bytes | bytearray) -> Any:
    """In the daemon: return what the handler returned, or raise what it raised.

    The exception's cause is a RemoteTraceback. One that cannot be rebuilt here, and one that would
    stop the daemon (SystemExit and its like), comes as a RemoteError.
    """
    content = memoryview(reply)[1:]
    if reply.startswith(_RETURNED):
        try:
            return pickle.loads(content)
        except Exception as error:
            raise Untransferable(
                f"what the handler returned cannot be read outside its process ({_brief(error)}); "
                "return plain data"
            ) from error
    packed, type_name, text, trace = pickle.loads(content)
    raised: Exception
    try:
        raised = pickle.loads(packed) if packed is not None else RemoteError(type_name, text)
    except Exception:
        raised = RemoteError(type_name, text)
    try:
        raise raised from RemoteTraceback(trace)
    finally:
        del raised  # its traceback holds this frame: together they would live until a collection


class Stopped(SystemExit):
    """In the child: the daemon asked it to end. Handlers see a SystemExit, and their `finally` runs."""


def _find(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _raised(error: BaseException) -> bytes:
    # The first frame is answer()'s own.
    name, text, trace = told(error, error.__traceback__ and error.__traceback__.tb_next)
    packed = _portable(error) if isinstance(error, Exception) else None
    return _RAISED + pickle.dumps((packed, name, text, trace), pickle.HIGHEST_PROTOCOL)


def _portable(error: Exception) -> bytes | None:
    """The exception pickled in a form that was seen to come out the same; None where there is none.

    An exception's own pickle repeats the call of its class with `args`, which most constructors that
    take more than a message do not survive (jobd's Snooze neither), or survive with other fields.
    """
    for pack in (_as_it_is, _rebuilt):
        try:
            packed = pack(error)
            copy = pickle.loads(packed)
            if type(copy) is type(error) and str(copy) == str(error):
                return packed
        except Exception:  # its pickling, its constructor and its __str__ are all its author's
            continue
    return None


def _as_it_is(error: Exception) -> bytes:
    return pickle.dumps(error, pickle.HIGHEST_PROTOCOL)


def _rebuilt(error: Exception) -> bytes:
    args = tuple(value if _picklable(value) else repr(value) for value in error.args)
    fields = {name: value for name, value in vars(error).items() if _picklable(value)}
    return pickle.dumps(_Rebuilt(type(error), args, fields), pickle.HIGHEST_PROTOCOL)


class _Rebuilt:
    """Pickles as the call that makes an exception anew, past its constructor."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Callable[..., Exception], tuple[Any, ...]]:
        return rebuild, self._parts


def rebuild(kind: type[Exception], args: tuple[Any, ...], fields: dict[str, Any]) -> Exception:
    """An exception with these args and fields; what its constructor would do is not repeated."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(fields)
    return error


def _picklable(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except Exception:
        return False
    return True


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
