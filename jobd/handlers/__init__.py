"""The handlers that ship with jobd: one line each, the kind and the module that holds it.

Nothing is imported until a daemon asks for a kind that its configuration names. Such a module has a
function `register(jobs, configuration)` that adds the handler and the resource it needs.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobd.app import Jobs

BUILT_IN: Final[Mapping[str, str]] = {
    "email": "jobd.handlers.email",
}


def register(jobs: "Jobs", kind: str, configuration: Any) -> None:
    """Add the built-in handler of `kind` to `jobs`; the application's own handler for it stays."""
    if jobs.registry.get(kind) is None:
        import_module(BUILT_IN[kind]).register(jobs, configuration)
