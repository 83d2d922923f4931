"""What surrounds every request: its id, its trace, the limit of its body, its line in the log (plain ASGI)."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from showcase.kernel import trace
from showcase.kernel.errors import TooLarge
from showcase.kernel.ids import new_uuid
from showcase.platform.web.problems import response_of

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Envelope:
    """Middleware around the whole app.

    Args:
        max_body_bytes: more than that is answered with 413, whether it was announced or not.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

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
        began = time.perf_counter()
        status = 0
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_body_bytes:
                    raise self._too_large()
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marked = MutableHeaders(scope=message)
                marked["X-Request-Id"] = request_id
                marked["traceparent"] = traceparent
                marked["X-Content-Type-Options"] = "nosniff"
            await send(message)

        announced = headers.get("content-length", "")
        try:
            if announced.isdecimal() and int(announced) > self.max_body_bytes:
                raise self._too_large()
            await self.app(scope, limited_receive, marked_send)
        except TooLarge as error:
            await response_of(error)(scope, receive, marked_send)
        finally:
            took_ms = round((time.perf_counter() - began) * 1000, 1)
            log.info("request", method=scope.get("method", "WS"), path=scope["path"], status=status, took_ms=took_ms)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a body has up to {self.max_body_bytes:,} bytes")
