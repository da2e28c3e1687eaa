"""From a payload to the arguments of one call: planned at first use, then fast.

What each parameter gets is `signature`'s matter; here keys meet parameters, and what does not fit
becomes one PayloadError that names every place. Values are never quoted in it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jobd.errors import PayloadError
from jobd.fields import Field, Misfit, Problem, describe, keys_of, path_text, text_of
from jobd.signature import Plan, Signature


class Binding:
    """Turns payloads into calls of one function. Safe to use from several threads."""

    def __init__(self, kind: str, function: Callable[..., Any], *, crosses_processes: bool = False) -> None:
        """Raises HandlerError for a signature that no payload can fill."""
        self.kind = kind
        self.task_name = f"jobd:{kind}"
        self._signature = Signature(kind, function, crosses_processes=crosses_processes)
        self._plan: Plan | None = None
        self._planned_for: Mapping[type, Any] | None = None
        self._early_plan: Plan | None = None

    def prepare(self, resource_types: Collection[type]) -> Plan:
        """Resolve the annotations now; raise the HandlerError that the first run would."""
        plan = self._plan
        if plan is None or plan.resource_types != frozenset(resource_types):
            plan = self._plan = self._signature.plan(frozenset(resource_types))
        return plan

    def _plan_for(self, resources: Mapping[type, Any]) -> Plan:
        # A daemon comes with the same resources for every job.
        if self._plan is None or resources is not self._planned_for:
            self.prepare(resources)
            self._planned_for = resources
        assert self._plan is not None
        return self._plan

    def takes_context(self, resources: Mapping[type, Any]) -> bool:
        """Whether a parameter gets the run's context. Raises HandlerError."""
        return bool(self._plan_for(resources).contexts)

    def bind(
        self, ctx: Any, payload: Any, resources: Mapping[type, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for one call. Raises PayloadError, and HandlerError where the signature cannot work.

        `payload` is what JSON gave. It may come back as an argument itself: it is the handler's from now on.
        """
        plan = self._plan_for(resources)
        arguments = self._arguments(plan, payload)
        for name in plan.contexts:
            arguments[name] = ctx
        for name, resource_type in plan.resources:
            arguments[name] = resources[resource_type]
        return (), arguments

    def payload_keys(self, resource_types: Collection[type], *, all_known: bool) -> frozenset[str] | None:
        """Which keys a payload may have; None where it may have any, or where that is not known yet."""
        plan = self.prepare(resource_types) if all_known else self._early(resource_types)
        if plan.rest is not None or not plan.certain:
            return None
        return frozenset(plan.fields) if plan.whole is None else keys_of(plan.whole[1].annotation)

    def _early(self, resource_types: Collection[type]) -> Plan:
        known = frozenset(resource_types)
        early = self._early_plan
        if early is None or early.resource_types != known:
            early = self._early_plan = self._signature.plan(known, all_known=False)
        return early

    def check(self, payload: Any, resource_types: Collection[type] = (), *, all_known: bool = False) -> None:
        """Raise the PayloadError that `bind` would for a payload not yet stored; models may come as such.

        Unless `all_known`, further resource types may be registered before the job runs. A payload
        whose meaning depends on them (a lone dataclass may be either) is then left for the run to judge.
        """
        plan = self.prepare(resource_types) if all_known else self._early(resource_types)
        if plan.certain:
            self._arguments(plan, payload if plan.whole else dumped(payload))

    def _arguments(self, plan: Plan, payload: Any) -> dict[str, Any]:
        if plan.whole is not None:
            return self._whole(plan, *plan.whole, payload)
        if payload is None:
            payload = {}
        elif type(payload) is not dict:
            raise self._refusal(plan, [((), f"expected an object, got {describe(payload)}")])
        arguments: dict[str, Any] = {}
        problems: list[Problem] = []
        fields = plan.fields
        for key, value in payload.items():
            field = fields.get(key)
            if field is None:
                # A payload must not reach a parameter that jobd fills, not even by way of **rest.
                field = None if key in plan.injected else plan.rest
                if field is None or not isinstance(key, str):
                    problems.append(((str(key),), "unexpected key"))
                    continue
            if type(value) in field.exact:
                arguments[key] = value
                continue
            try:
                arguments[key] = field.convert(value)
            except Misfit as misfit:
                problems += [((key, *path), words) for path, words in misfit.problems]
        if problems or not arguments.keys() >= plan.required:
            for name in sorted(plan.required - payload.keys()):
                problems.append(((name,), f"missing, expected {fields[name]}"))
            raise self._refusal(plan, problems)
        return arguments

    def _whole(self, plan: Plan, name: str, field: Field, payload: Any) -> dict[str, Any]:
        if type(payload) in field.exact:
            return {name: payload}
        try:
            return {name: field.convert(payload)}
        except Misfit as misfit:
            if payload is None and name not in plan.required:
                return {}
            raise self._refusal(plan, misfit.problems) from None

    def _refusal(self, plan: Plan, problems: Sequence[Problem]) -> PayloadError:
        path, words = problems[0]
        names = sorted(plan.fields)
        if plan.whole is not None:
            remedy = f"handler {self.kind!r} takes {plan.whole[1]}"
        elif plan.rest is not None:
            remedy = f"handler {self.kind!r} takes an object"
        elif not names:
            remedy = f"handler {self.kind!r} takes no keys"
        else:
            remedy = f"handler {self.kind!r} takes the keys {', '.join(names[:12])}"
            remedy += ", …" if len(names) > 12 else ""
        if words == "unexpected key":
            close = difflib.get_close_matches(str(path[-1])[:60], names, n=1)
            remedy = f"did you mean {close[0]!r}? {remedy}" if close else remedy
        return PayloadError(path_text(path), text_of(problems), remedy)


def dumped(payload: Any) -> Any:
    """A model or dataclass as the object that will be stored; anything else as it is.

    Fields go by their aliases, and computed ones are left out: what is stored has to fit the model
    again. The members of a dataclass are left as they are.
    """
    if type(payload) is dict:
        return payload
    if hasattr(payload, "__pydantic_validator__") and hasattr(payload, "model_dump"):
        return payload.model_dump(mode="json", by_alias=True, round_trip=True)
    if dataclasses.is_dataclass(payload) and not isinstance(payload, type):
        return {field.name: getattr(payload, field.name) for field in dataclasses.fields(payload)}
    return payload
