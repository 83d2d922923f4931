"""`Idempotency-Key`: a request that is sent twice has its effect once, and gets the same answer both times.

After draft-ietf-httpapi-idempotency-key-header. The stored answer is a row of the same transaction as what the
request did, so there is no moment at which one is there without the other, and nothing to clean up after a
crash. While a request runs it holds an advisory lock on its key; the lock goes with the transaction, however
that ends. A request that is refused stores nothing: sent again, it is judged again.
"""

import hashlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from showcase.kernel.errors import Conflict, Invalid
from showcase.platform.database import Database
from showcase.platform.web.callers import Allowed, caller

HEADER = "Idempotency-Key"
MAX_LENGTH = 200
REPLAYED = "Idempotent-Replayed"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class BadIdempotencyKey(Invalid):
    """The Idempotency-Key is empty or too long."""


class IdempotencyKeyReused(Invalid):
    """The Idempotency-Key was used before, with another request."""


class StillInFlight(Conflict):
    """A request with this Idempotency-Key is being answered right now."""


def idempotent(database: Database, lifetime: timedelta) -> type[APIRoute]:
    """A kind of route (`APIRouter(route_class=…)`) whose POSTs take an Idempotency-Key.

    Args:
        lifetime: for how long an answer is kept.
    """

    class IdempotentRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def once(request: Request) -> Response:
                key = request.headers.get(HEADER)
                if key is None or request.method != "POST":
                    return await handle(request)
                if not 0 < len(key) <= MAX_LENGTH:
                    raise BadIdempotencyKey(f"it has 1 to {MAX_LENGTH} characters")
                principal = await caller(request)
                for needed in self.dependant.dependencies:  # before a stored answer is shown
                    if isinstance(needed.call, Allowed):
                        await needed.call(request)
                body = hashlib.sha256(f"{request.url.path}\n".encode() + await request.body()).digest()
                names = {"principal": principal.subject, "key": key}
                async with database.transaction() as db:
                    lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:principal || ' ' || :key, 0))")
                    if not (await db.execute(lock, names)).scalar_one():
                        raise StillInFlight("wait for its answer, or send it again in a moment")
                    found = (await db.execute(_FIND, names)).one_or_none()
                    if found is not None:
                        if found.fingerprint != body:
                            raise IdempotencyKeyReused("take a new key for another request")
                        return Response(
                            found.body, found.status, {REPLAYED: "true", **found.headers}, found.headers["content-type"]
                        )
                    response = await handle(request)
                    kept = {k: v for k, v in response.headers.items() if k in ("content-type", "location", "etag")}
                    answer = {"status": response.status_code, "headers": kept, "body": bytes(response.body)}
                    await db.execute(_KEEP, {**names, **answer, "fingerprint": body, "lifetime": lifetime})
                    return response

            return once

    return IdempotentRoute


_FIND = text("""
    SELECT fingerprint, status, headers, body FROM idempotency_keys
    WHERE principal = :principal AND key = :key AND expires_at > now()
""")
_KEEP = text("""
    INSERT INTO idempotency_keys (principal, key, fingerprint, status, headers, body, expires_at)
    VALUES (:principal, :key, :fingerprint, :status, :headers, :body, now() + :lifetime)
    ON CONFLICT (principal, key) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
        headers = excluded.headers, body = excluded.body, expires_at = excluded.expires_at
""").bindparams(bindparam("headers", type_=JSONB))


async def prune(database: Database) -> int:
    """Remove answers that have expired; how many."""
    async with database.transaction() as db:
        return (await db.execute(text("DELETE FROM idempotency_keys WHERE expires_at <= now()"))).rowcount
