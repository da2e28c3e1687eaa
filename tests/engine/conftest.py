"""The event loops that tests of the engine run on: asyncio's own, or those that a module names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """A module's `LOOPS`, by name."""
    module = getattr(item, "module", None)
    return getattr(module, "LOOPS", {"asyncio": asyncio.new_event_loop})
