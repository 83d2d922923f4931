"""The worker behind the WebSockets, on real servers: what happens to events while Redis is away."""

from collections.abc import Iterator

import pytest
from redis import Redis

from showcase.composition import CONSUMERS
from showcase.kernel.errors import Unavailable
from showcase.kernel.ids import EventId
from showcase.platform.resources import Resources
from tests.fakes import settings_of
from tests.integration.system import System, system_on, wait_for
from tests.integration.test_order_views import place
from workshop.stack import Stack

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-state"]) as private:
        yield private


def told(system: System) -> int:
    """How many events are in the stream, apart from its beginning."""
    environment = system.environment
    with Redis.from_url(environment["SHOWCASE_REDIS_STATE_URL"]) as redis:
        return max(0, int(redis.xlen(f"{environment['SHOWCASE_REDIS_PREFIX']}events")) - 1)


def test_while_redis_is_away_events_wait_in_their_queue_and_none_is_parked(stack: Stack, private: Stack) -> None:
    with system_on(stack, private) as system:
        system.slices = "shop"
        system.start("app")
        place(system, 20)
        server = private.server("redis-state")
        server.pause()
        try:
            system.start("relay", "realtime", redis_timeout_s=0.5, retry_delays_s="0.1")
            wait_for(lambda: system.running("realtime")[0].log.read_text().count("waiting for the database") >= 3)
        finally:
            server.resume()

        wait_for(lambda: told(system) == 20)
        assert system.waiting("parking") == 0


async def test_inbox_of_the_worker_knows_whether_redis_answers(stack: Stack, private: Stack) -> None:
    with private.namespace() as names:
        async with Resources(settings_of(names.env, redis_timeout_s=0.2)) as resources:
            inbox = CONSUMERS["realtime"](resources).inbox
            assert inbox is not None
            ids = [EventId("a")]
            assert (await inbox.seen(ids), await inbox.enter(ids)) == (set(), set(ids))

            private.server("redis-state").pause()
            try:
                with pytest.raises(Unavailable):
                    await inbox.seen(ids)
                with pytest.raises(Unavailable):
                    await inbox.leave(ids[0])
            finally:
                private.server("redis-state").resume()
