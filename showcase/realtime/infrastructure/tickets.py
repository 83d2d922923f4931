"""Tickets in Redis: what is stored does not tell what the ticket is."""

import hashlib
import json
import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from showcase.kernel.principal import Principal
from showcase.platform.redis import translated
from showcase.realtime.application.ports import BadTicket


class RedisTickets:
    """See `application.ports.Tickets`.

    Args:
        redis: whose answers are text.
        lifetime: of a ticket that nobody redeems.
    """

    def __init__(self, redis: Redis, *, prefix: str, lifetime: timedelta) -> None:
        self._redis = redis
        self._prefix = f"{prefix}ticket:"
        self._lifetime = lifetime

    async def issue(self, principal: Principal) -> str:
        ticket = secrets.token_urlsafe(32)
        with translated():
            await self._redis.set(self._key(ticket), _written(principal), px=self._lifetime)
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        with translated():
            written: Any = await self._redis.getdel(self._key(ticket))
        if written is None:
            raise BadTicket("a ticket works once, within half a minute: ask for another one")
        return _read(written)

    def _key(self, ticket: str) -> str:
        return self._prefix + hashlib.sha256(ticket.encode()).hexdigest()


def _written(principal: Principal) -> str:
    return json.dumps(
        {
            "subject": principal.subject,
            "scopes": sorted(principal.scopes),
            "session_id": principal.session_id and str(principal.session_id),
            "expires_at": principal.expires_at and principal.expires_at.isoformat(),
        }
    )


def _read(written: str) -> Principal:
    known = json.loads(written)
    return Principal(
        subject=known["subject"],
        scopes=frozenset(known["scopes"]),
        session_id=known["session_id"] and UUID(known["session_id"]),
        expires_at=known["expires_at"] and datetime.fromisoformat(known["expires_at"]),
    )
