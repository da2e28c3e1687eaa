"""What a handler's parameters get, read from its signature; and which functions cannot be handlers.

    parameter                                        gets
    annotated JobContext, or an unannotated `ctx`    the context of the run
    annotated with a registered resource's type      that resource
    the only one left: `payload`, or a model,        the whole payload, validated
      dataclass, TypedDict or dict
    otherwise, each one left                         the payload's key of its name, validated
    **rest                                           the keys that nothing else took

Annotations are resolved when a plan is made, not at declaration: a forward reference need not exist
by then, and the types of resources are known only when the application runs.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from jobd.errors import HandlerError
from jobd.fields import Field, Unusable, core_of, has_fields, name_of, takes_object

_EMPTY = inspect.Parameter.empty
_UNRESOLVED = object()
# Quotes within the text come from a quoted annotation under `from __future__ import annotations`.
_CONTEXT = re.compile(r"""['"]?(\w+\.)*JobContext(\s*\|\s*None)?['"]?""")


@dataclass(frozen=True, slots=True)
class Plan:
    """What each parameter gets. `whole` is set, or `fields` (and `rest`) say which keys may come.

    `certain` is False where more resource types may come and would change which parameter is the payload.
    """

    resource_types: frozenset[type]
    contexts: tuple[str, ...]
    resources: tuple[tuple[str, type], ...]
    whole: tuple[str, Field] | None
    fields: dict[str, Field]
    required: frozenset[str]
    rest: Field | None
    injected: frozenset[str]
    certain: bool


class Signature:
    """A handler's signature, checked when it is declared and planned when it is used."""

    def __init__(self, kind: str, function: Callable[..., Any], *, crosses_processes: bool) -> None:
        """Raises HandlerError for what can be seen without resolving annotations."""
        self.kind = kind
        self._function = innermost(function)
        self._parameters = inspect.signature(function).parameters
        self._crosses_processes = crosses_processes
        self._locals = _enclosing_names(self._function)
        for parameter in self._parameters.values():
            if remedy := _parameter_remedy(parameter):
                raise HandlerError(f"handler {kind!r}: parameter {parameter.name!r} {remedy}")
            if crosses_processes and _is_context(parameter):
                raise self._no_crossing(parameter.name)

    def plan(self, resource_types: frozenset[type], *, all_known: bool = True) -> Plan:
        """Raises HandlerError where a parameter can get nothing."""
        contexts: list[str] = []
        resources: list[tuple[str, type]] = []
        left: dict[str, Field] = {}
        rest: Field | None = None
        unresolved = False
        for name, parameter in self._parameters.items():
            if _is_context(parameter):
                contexts.append(name)
                continue
            annotation = self._resolved(parameter, resource_types, all_known)
            core = core_of(annotation)
            if _is_context(parameter.replace(annotation=core)):
                contexts.append(name)
            elif isinstance(core, type) and core in resource_types:
                resources.append((name, core))
            elif annotation is _UNRESOLVED:
                unresolved = True
            elif field := self._field(parameter, annotation, all_known):
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    rest = field
                else:
                    left[name] = field
        if self._crosses_processes and (contexts or resources):
            raise self._no_crossing(contexts[0] if contexts else resources[0][0])
        whole = None
        if len(left) == 1 and rest is None:
            [(name, field)] = left.items()
            if name == "payload" or takes_object(field.annotation):
                whole = (name, field)
        named = {
            name
            for name, parameter in self._parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
        return Plan(
            resource_types=resource_types,
            contexts=tuple(contexts),
            resources=tuple(resources),
            whole=whole,
            fields={} if whole else left,
            required=frozenset(name for name in left if self._parameters[name].default is _EMPTY),
            rest=rest,
            injected=frozenset(named - left.keys()),
            certain=all_known or not (unresolved or _depends_on_resources(left)),
        )

    def _field(self, parameter: inspect.Parameter, annotation: Any, all_known: bool) -> Field | None:
        """None for what no payload can fill: it has a default, or may be a resource not yet known."""
        try:
            return Field(annotation)
        except Unusable as why:
            if not all_known or parameter.default is not _EMPTY:
                return None
            raise HandlerError(
                f"handler {self.kind!r}: nothing can be passed as {parameter.name!r}: {name_of(annotation)} "
                f"is neither a registered resource type, nor a type that a JSON value can become ({why}); "
                "register the resource, or change the annotation"
            ) from why

    def _resolved(
        self, parameter: inspect.Parameter, resource_types: Collection[type], all_known: bool
    ) -> Any:
        written = parameter.annotation
        if written is _EMPTY:
            return _EMPTY
        holder = types.SimpleNamespace(__annotations__={"it": written})
        names = getattr(self._function, "__globals__", {})
        try:
            return typing.get_type_hints(holder, names, {**names, **self._locals}, include_extras=True)["it"]
        except Exception as error:  # an annotation is an expression: it may raise anything
            if isinstance(written, str):
                # Imported under TYPE_CHECKING only: its name is all there is.
                last = written.strip("'\"").split("|")[0].strip().rpartition(".")[2]
                named = [found for found in resource_types if found.__name__ == last]
                if len(named) == 1:
                    return named[0]
                if not all_known:
                    return _UNRESOLVED
            raise HandlerError(
                f"handler {self.kind!r}: the annotation of parameter {parameter.name!r} cannot be resolved: "
                f"{name_of(written)} ({error}); import the type at run time, at the top of the module"
            ) from error

    def _no_crossing(self, name: str) -> HandlerError:
        return HandlerError(
            f"handler {self.kind!r} runs in a process, where parameter {name!r} cannot follow: neither a "
            "JobContext nor a resource crosses; leave the parameter out, or run it in a thread"
        )


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that the author wrote, under partials, methods and functools.wraps."""
    while True:
        inner = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        inner = getattr(inner, "__func__", inner)
        if inner is function:
            return inner
        function = inner


def function_remedy(function: Any) -> str | None:
    """Why an object cannot be a handler, and what to do; None where it can."""
    if inspect.isclass(function):
        return "is a class; declare a function or a method of an instance instead"
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return "is a generator, which would end at its first yield; return a value, report by ctx.progress()"
    if isinstance(function, functools.partial):
        return function_remedy(function.func)
    if not (inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function)):
        return f"is of type {type(function).__name__}; declare a function that calls it"
    if inspect.isbuiltin(function):
        return "is built in, without annotations; declare a function that calls it"
    if not inspect.iscoroutinefunction(function) and inspect.iscoroutinefunction(innermost(function)):
        return "is wrapped by a plain function around a coroutine function; write the wrapper as `async def`"
    return None


def process_remedy(function: Callable[..., Any]) -> str | None:
    """Why another process could not import a function by module and name; None where it can."""
    name = getattr(function, "__qualname__", "")
    if inspect.iscoroutinefunction(function):
        return "is a coroutine function, which runs on the loop; write it as a plain `def`"
    if not inspect.isfunction(function):
        return f"is a {type(function).__name__}; declare a plain function at the top of a module"
    if "<lambda>" in name:
        return "is a lambda; declare it by `def` at the top of a module"
    if "<locals>" in name:
        return "is declared inside a function; move it to the top of a module"
    if function.__module__ == "__main__":
        return "is declared in __main__; move it to a module that can be imported"
    return None


def is_importable(function: Callable[..., Any]) -> bool:
    """Whether the name under which another process would look the function up still leads to it."""
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _parameter_remedy(parameter: inspect.Parameter) -> str | None:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return "takes positional arguments, and a payload has none; name the parameters, or take **keywords"
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return "is positional-only, and arguments are passed by name; remove the `/`"
    if parameter.name in ("self", "cls") and parameter.annotation is _EMPTY:
        return "belongs to a class; register the method of an instance: jobs.handler(...)(instance.method)"
    default = type(parameter.default)
    if default.__name__ == "FieldInfo" and default.__module__.startswith("pydantic"):
        return "has a pydantic Field as its default; write it as Annotated[type, Field(...)]"
    return None


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return False
    if annotation is _EMPTY:
        return parameter.name == "ctx"
    if isinstance(annotation, str):
        return _CONTEXT.fullmatch(annotation) is not None
    return isinstance(annotation, type) and bool(getattr(annotation, "__jobd_context__", False))


def _depends_on_resources(left: Mapping[str, Field]) -> bool:
    cores = [core_of(field.annotation) for name, field in left.items() if name != "payload"]
    if len(left) > 1:
        return any(has_fields(core) for core in cores)
    # A lone pydantic model is the payload; a dataclass, or settings, may as well be a resource.
    return any(
        hasattr(core, "__dataclass_fields__")
        or "BaseSettings" in (cls.__name__ for cls in inspect.getmro(core))
        for core in cores
        if has_fields(core) and isinstance(core, type)
    )


def _enclosing_names(function: Callable[..., Any]) -> dict[str, Any]:
    """The local names that annotations written as text mention, for a handler declared inside a function."""
    outer, _, _ = getattr(function, "__qualname__", "").rpartition(".<locals>")
    texts = [text for text in getattr(function, "__annotations__", {}).values() if isinstance(text, str)]
    if not outer or not texts:
        return {}
    words = set(re.findall(r"\w+", " ".join(texts)))
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_qualname != outer:
        frame = frame.f_back
    return {name: value for name, value in frame.f_locals.items() if name in words} if frame else {}
