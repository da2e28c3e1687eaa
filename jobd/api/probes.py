"""What a container platform, a load balancer and a Prometheus ask: /livez, /readyz, /health, /metrics.

    /livez             do the loops turn?  Asks nothing outside the process: a restart is the cure.
    /readyz, /health   could a job run to its end now?  Asks the database.
    /metrics           the page of `jobd.metrics`

They carry no payloads and may be public, so they cost an unfriendly caller more than us: however many
ask at once, one question to the database is under way. What is true is the `Condition`'s to know.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobd.api.headers import SecurityHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

LIMIT_SECONDS: Final = 4.0
"""Below the 5 s that most who probe allow: an answer with a reason is worth more than their time-out."""

T = TypeVar("T")
Told = TypeVar("Told")
Told_co = TypeVar("Told_co", covariant=True)
Told_contra = TypeVar("Told_contra", contravariant=True)


class Condition(Protocol[Told_co]):
    """What the daemon knows of itself. Reasons are shown to anybody who asks: no secrets in them."""

    def stalled(self) -> str | None:
        """Why a restart is due: a loop does not turn. None while all do."""

    async def unready(self) -> list[str]:
        """Why a job could not run to its end now; empty when it could. Each call looks afresh."""

    async def depths(self) -> Told_co | None:
        """How full the queues are, and what schedules there are; None when the database does not answer."""

    def gauges(self) -> Mapping[str, float]:
        """Numbers about this process, by the names of `jobd.gauges.GAUGES`; unknown ones left out."""

    def describe(self) -> Mapping[str, Any]:
        """What else a probe's answer shows: worker, version, roles, queues."""


class MetricsPage(Protocol[Told_contra]):
    """What `/metrics` shows; `jobd.metrics.Metrics` is one, of the depths of queues."""

    def render(
        self, depths: Told_contra | None, gauges: Mapping[str, float], *, accept: str = ""
    ) -> tuple[bytes, str]:
        """Return the page and its content type."""


def create_app(
    condition: Condition[Told], metrics: MetricsPage[Told], *, limit: float = LIMIT_SECONDS
) -> ASGIApp:
    """Build the application. A question to the condition that takes `limit` seconds counts as answered no."""
    unready = _Shared(condition.unready)
    depths = _Shared(condition.depths)

    def answer(reasons: list[str]) -> Response:
        body = {"status": "unhealthy" if reasons else "healthy", "reasons": reasons}
        return _json({**condition.describe(), **body}, status=503 if reasons else 200)

    async def livez(_: Request) -> Response:
        reason = condition.stalled()
        return answer([] if reason is None else [reason])

    async def readyz(_: Request) -> Response:
        try:
            async with asyncio.timeout(limit):
                reasons = await unready()
        except TimeoutError:
            reasons = [f"the check did not end within {limit:g} s"]
        except Exception as error:
            logger.exception("the readiness check failed")
            reasons = [f"the check failed: {type(error).__name__}, see the log"]
        return answer(reasons)

    async def metrics_page(request: Request) -> Response:
        try:
            async with asyncio.timeout(limit):
                found = await depths()
        except Exception as error:
            # The rest of the page matters most at such a time.
            logger.warning("queues and schedules are left out of /metrics: %r", error)
            found = None
        page, content_type = metrics.render(
            found, condition.gauges(), accept=request.headers.get("accept", "")
        )
        return Response(page, headers={"content-type": content_type})

    routes = {"/livez": livez, "/readyz": readyz, "/health": readyz, "/metrics": metrics_page}
    app = Starlette(
        routes=[Route(path, answering) for path, answering in routes.items()],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    return SecurityHeaders(app)


class _Shared(Generic[T]):
    """A question of which at most one is under way; those who wait share the next answer.

    A caller gets an answer that was sought after it asked, never an older one: a probe sent after a
    SIGTERM must not read what was true before it.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._begun = 0
        self._answer: tuple[int, T] | None = None

    async def __call__(self) -> T:
        asked = self._begun
        async with self._lock:
            if self._answer is not None and self._answer[0] > asked:
                return self._answer[1]
            self._begun += 1
            answer = await self._ask()
            self._answer = self._begun, answer
            return answer


def _json(body: Mapping[str, Any], *, status: int, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(body, default=str)
    return Response(text, status_code=status, media_type="application/json", headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, status=error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # The server logs the traceback; the client gets an id to ask about, and nothing from inside.
    request_id = uuid.uuid4().hex
    logger.error("request %s to %s failed: %s", request_id, request.url.path, type(error).__name__)
    return _json({"error": "internal error", "request_id": request_id}, status=500)
