"""Which jobs a verb is meant for, on the command line: by their ids, or by filters that choose many."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from jobd.errors import MISSING, ConfigError

if TYPE_CHECKING:
    from jobd.filters import Filters

Ids = Annotated[list[UUID] | None, typer.Argument(metavar="ID...", help="Which jobs; or choose by filters.")]

_filter = partial(typer.Option, rich_help_panel="Filters, of which all must hold (given twice: any of them)")
_bulk = partial(typer.Option, rich_help_panel="With filters")

FILTERS: dict[str, Any] = {
    "queue": Annotated[list[str] | None, _filter("--queue", metavar="NAME", help="Of this queue.")],
    "kind": Annotated[list[str] | None, _filter("--kind", metavar="KIND", help="Of this kind.")],
    "state": Annotated[list[str] | None, _filter("--state", metavar="STATE", help="In this state.")],
    "tenant": Annotated[list[str] | None, _filter("--tenant", metavar="NAME", help="Of this tenant.")],
    "use_case": Annotated[list[str] | None, _filter("--use-case", metavar="NAME", help="Of this use case.")],
    "tag": Annotated[list[str] | None, _filter("--tag", metavar="TAG", help="With this tag.")],
    "error": Annotated[
        str | None,
        _filter("--error", metavar="TEXT", help="With this in the last error, in upper or lower case."),
    ],
    "error_type": Annotated[
        list[str] | None,
        _filter("--error-type", metavar="CLASS", help="Whose last error is of this class."),
    ],
    "older_than": Annotated[
        str | None,
        _filter("--older-than", metavar="DURATION", help="Enqueued (if ended: ended) longer ago."),
    ],
    "newer_than": Annotated[
        str | None,
        _filter("--newer-than", metavar="DURATION", help="Not as long ago; spares older history."),
    ],
    "everything": Annotated[bool, _filter("--all", help="Every job that the verb takes.")],
}
CONDUCT: dict[str, Any] = {
    "limit": Annotated[
        int | None,
        _bulk("--limit", "-n", metavar="N", min=1, help="At most so many: ended ones first, by age."),
    ],
    "dry_run": Annotated[bool, _bulk("--dry-run", help="Only count them.")],
    "yes": Annotated[bool, _bulk("--yes", "-y", help="Do not ask.")],
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The words of a command line that say which jobs, and how to go about it."""

    ids: list[UUID]
    filters: Filters
    limit: int | None
    dry_run: bool
    yes: bool

    def by_id(self, verb: str) -> bool:
        """Whether ids were given. Raises ConfigError where that is not clear, or nothing was given."""
        if not self.ids:
            if not self.filters:
                remedy = "say which jobs: ids, filters like --queue and --kind, or --all"
                raise ConfigError(verb, MISSING, remedy)
            return False
        for name, value in {**self.filters, "limit": self.limit, "dry_run": self.dry_run}.items():
            if value not in (None, False):
                raise ConfigError(
                    option(name), value, "chooses among many jobs, and ids say which: give one of the two"
                )
        return True


_OPTIONS = {"tenant": "tenant_id", "everything": "all"}


def option(name: str) -> str:
    """A filter's name as it is typed."""
    return "--" + name.removesuffix("_id").replace("_", "-")


def choosing(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the words that choose jobs; it gets them as `chosen`."""

    @functools.wraps(verb)
    def with_words(**words: Any) -> None:
        # An empty text stays, to be refused: `--error "$UNSET"` must not mean every job.
        said = {name: value for name in FILTERS if (value := words.pop(name)) not in (None, False, [])}
        filters = {_OPTIONS.get(name, name): value for name, value in said.items()}
        conduct = {name: words.pop(name) for name in CONDUCT}
        chosen = Chosen(ids=words.pop("ids") or [], filters=filters, **conduct)  # type: ignore[arg-type]
        verb(chosen=chosen, **words)

    own = [
        parameter
        for parameter in inspect.signature(verb, eval_str=True).parameters.values()
        if parameter.name != "chosen"
    ]
    shared: dict[str, tuple[Any, Any]] = {"ids": (Ids, None)}
    shared |= {name: (kind, False if name == "everything" else None) for name, kind in FILTERS.items()}
    shared |= {name: (kind, None if name == "limit" else False) for name, kind in CONDUCT.items()}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in shared.items()
    ] + [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    with_words.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_words.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_words
