"""Redis, either of the two: a prefix of keys."""

from collections.abc import Iterator
from itertools import islice

import redis

from workshop.stack.model import Urls
from workshop.stack.namespace.part import Trace, found, in_server, owner, speaking_to

BATCH = 1_000


class RedisPart:
    """A namespace's keys in one Redis server.

    Args:
        server: `redis-cache` or `redis-state`.
        variable: the one that holds its URL.
    """

    def __init__(self, urls: Urls, within_s: float, *, server: str, variable: str) -> None:
        self.urls = urls
        self.within_s = within_s
        self.server = server
        self.variable = variable

    def create(self, name: str) -> None:
        """Nothing to make."""

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, redis.RedisError), self.client() as session:
            if name is not None:
                return found(f"{self.server} key", keys(session, in_server(name)), name)
            # The keys of a whole server may be many: one of each namespace is enough.
            first = {owner(key): key for key in keys(session, "ns_*")}
            return found(f"{self.server} key", first.values(), None)

    def drop(self, name: str) -> None:
        with speaking_to(self.server, redis.RedisError), self.client() as session:
            scan = keys(session, in_server(name))
            while batch := list(islice(scan, BATCH)):
                session.unlink(*batch)

    def client(self) -> redis.Redis:
        """A client that gives up at its deadline (one made by `from_url` does not try again)."""
        return redis.Redis.from_url(
            self.urls[self.variable],
            socket_timeout=self.within_s,
            socket_connect_timeout=self.within_s,
            decode_responses=True,
        )


def keys(session: redis.Redis, prefix: str) -> Iterator[str]:
    """All keys that begin so, and then with a colon, without blocking the server."""
    return iter(session.scan_iter(match=f"{prefix}:*", count=BATCH))
