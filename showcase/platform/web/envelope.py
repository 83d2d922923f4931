"""What surrounds every request: its id, its trace, its line in the log, the limit of its body (plain ASGI)."""

import re
import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showcase.kernel import trace
from showcase.kernel.acting import ANONYMOUS, LIMITS, Acting, acting
from showcase.kernel.errors import TooLarge
from showcase.kernel.ids import new_uuid
from showcase.platform.web.problems import bug, response_of

log = structlog.get_logger()

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",  # browsers heed it over HTTPS only
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""For every answer that does not say otherwise (OWASP REST Security Cheat Sheet)."""
_said: ContextVar[dict[str, str] | None] = ContextVar("said", default=None)
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1): whoever uses them does not act."""
REASON = "X-Audit-Reason"
"""Why a request changes something, in the caller's words, as UTF-8."""


def say(name: str, value: str) -> None:
    """Add a header to the answer of the request that is being handled; outside of one it says nothing to nobody."""
    said = _said.get()
    if said is not None:
        said[name] = value


class Envelope:
    """Middleware around the whole app: names each request, and answers for what nobody has caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(new_uuid())
        traceparent = trace.enter(headers.get("traceparent"))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        said: dict[str, str] = {}
        _said.set(said)
        began = time.perf_counter()
        status = 0

        async def marked_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marked = MutableHeaders(scope=message)
                marked["X-Request-Id"] = request_id
                marked["traceparent"] = traceparent
                marked.update(said)
                for name, value in SECURITY.items():
                    marked.setdefault(name, value)
            await send(message)

        try:
            with _acting_in(scope, headers, request_id, traceparent):
                await self.app(scope, receive, marked_send if scope["type"] == "http" else send)
        except Exception as error:
            log.error("unhandled", path=scope["path"], exc_info=error)
            if status or scope["type"] != "http":
                raise
            await bug()(scope, receive, marked_send)
        finally:
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            log.info("request", method=scope.get("method", "WS"), path=scope["path"], status=status, took_ms=took_ms)


def _acting_in(scope: Scope, headers: Headers, request_id: str, traceparent: str) -> AbstractContextManager[None]:
    """Somebody acts while an unsafe request is handled; `callers.caller` tells who, once it is proven."""
    method = scope.get("method", "")
    if scope["type"] != "http" or method in SAFE:
        return nullcontext()
    reason = _reason(headers.get(REASON, "")) or f"{method} {scope['path']}"
    return acting(Acting(actor=ANONYMOUS, request_id=request_id, reason=reason, traceparent=traceparent))


def _reason(given: str) -> str:
    """A reason that can be shown to whoever reads the audit; nothing, if this one cannot."""
    try:
        reason = given.encode("latin-1").decode()  # a header comes as latin-1, whatever it was
    except UnicodeDecodeError:
        return ""
    return reason if reason.isprintable() and len(reason) <= LIMITS["reason"] else ""


class BodyLimit:
    """Middleware that answers a body of too many bytes with 413, whether it was announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = TooLarge(f"a body has up to {self.max_bytes:,} bytes")
        received = 0
        has_begun = False

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise too_large
            return message

        async def limited_send(message: Message) -> None:
            nonlocal has_begun
            if received <= self.max_bytes:  # or the app answers that it could not read the body: we know why
                has_begun = True
                await send(message)

        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self.max_bytes:
            received = int(announced)
        else:
            await self.app(scope, limited_receive, limited_send)
        if received > self.max_bytes and not has_begun:
            await response_of(too_large)(scope, receive, send)
