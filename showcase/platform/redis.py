"""Redis: a client whose every call ends within its deadline."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from showcase.kernel.errors import Unavailable


def connect(url: str, *, timeout_s: float, text: bool = True) -> Redis:
    """A client that opens connections as it needs them.

    Args:
        timeout_s: the longest that one call may take. The library's own retries would multiply it: the one
            retry left here is of a connection that turns out to be closed.
        text: whether answers are text; bytes otherwise.
    """
    return Redis.from_url(
        url,
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
