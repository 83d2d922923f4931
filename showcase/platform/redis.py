"""Redis: a client whose every call ends within its deadline."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from showcase.kernel.errors import Unavailable

CUT = "the handler is closed"
"""What uvloop says of a line that was cut; the error has no class of its own."""


class _Connection(Connection):
    """Says of every line that is cut what the driver says of most of them.

    uvloop tells whoever writes on a line that was cut a moment ago so by a RuntimeError, which asyncio's own loop does
    not (https://github.com/MagicStack/uvloop/issues/506). Whatever waits for a server to come back would end by it.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            if CUT not in str(error):  # a mistake of ours is no server that is away
                raise
            raise RedisConnectionError(str(error)) from error


def connect(url: str, *, timeout_s: float, text: bool = True) -> Redis:
    """A client that opens connections as it needs them.

    Args:
        timeout_s: the longest that one call may take. The library's own retries would multiply it: the one
            retry left here is of a connection that turns out to be closed.
        text: whether answers are text; bytes otherwise.
    """
    return Redis.from_url(
        url,
        connection_class=_Connection,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        retry_on_timeout=False,
        max_connections=100,
        decode_responses=text,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver says of a server that is away into one error of the domain."""
    try:
        yield
    except (RedisConnectionError, RedisTimeout) as error:
        raise Unavailable("redis does not answer in time") from error
    except RedisError as error:  # LOADING, READONLY, OOM: it is there, but of no use now
        raise Unavailable(f"redis refuses: {error}") from error
