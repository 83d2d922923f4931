"""Lesson 11 without servers: followers and who asks, strikes, a crowd, what is counted; over a stream in memory."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from threading import Timer
from typing import Any, Self
from uuid import UUID

import httpx
import pandas as pd
import pytest
from fastapi import FastAPI

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.realtime.api import Door, socket_route, ticket_routes
from showcase.realtime.application.hub import Hub
from showcase.realtime.client import Gap, Refused
from tests.fakes import serving, settings_of
from tests.fakes_realtime import MemoryStream, MemoryTickets
from workshop.lab import CheckFailed
from workshop.lab.background import Background
from workshop.lab.checks import until
from workshop.lab.replay import Replay
from workshop.live import crowd, knocking, memory, moving, naive, polling, slow, stream
from workshop.live.following import Follower, Followers
from workshop.live.telling import order_event, product_event

pytestmark = pytest.mark.anyio

STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_FOLLOW, Scope.SUPPORT}))
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset())
KNOWN = {"staff": STAFF, "household": HOUSEHOLD}


class World:
    """An app with nothing but real time, served from a thread of its own."""

    def __init__(self) -> None:
        self.background = Background()
        self.stream = MemoryStream()
        self.url = self.background.run(self._serve())

    def tell(self, *events: Event) -> None:
        self.background.run(self._tell(events))

    def close(self) -> None:
        self.background.run(self._end())
        self.background.close()

    async def _tell(self, events: tuple[Event, ...]) -> None:
        for event in events:
            await self.stream.publish(event)

    async def _serve(self) -> str:
        self._stop = asyncio.Event()
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started))
        return f"http://{await started}"

    async def _run(self, started: "asyncio.Future[str]") -> None:
        hub, tickets = Hub(self.stream, nobody_s), MemoryTickets(KNOWN)
        door = Door(tickets=tickets, has_ended=never)
        slices = [Slice(name="realtime", routers=(ticket_routes(tickets, 30.0), socket_route(hub, door)))]
        app: FastAPI = build(Resources(settings_of({})), slices, authenticate)
        reading = asyncio.create_task(hub.read(self._stop))
        await hub.positioned.wait()
        async with serving(app) as address:
            started.set_result(address)
            await self._stop.wait()
        await reading

    async def _end(self) -> None:
        self._stop.set()
        await self._task


async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
    if token not in KNOWN:
        raise Unauthenticated("no such token")
    return KNOWN[token]


async def nobody_s(order_id: UUID) -> int | None:
    return None


async def never(session_id: UUID, *, sensitive: bool) -> bool:
    return False


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as closing:
        made = World()
        closing.callback(made.close)
        yield made


def follower(world: World, name: str = "kitchen", topic: str = "orders", **more: Any) -> Follower:
    return Follower(name=name, urls=[world.url], token="staff", topics=[topic], **more)


# -- following


def test_followers_note_what_comes_in_its_order(world: World) -> None:
    events = [order_event(7, number) for number in range(5)]
    with Followers(follower(world), follower(world, "other", "households/8")) as followers:
        world.tell(*events)
        until(lambda: followers.counts()["kitchen"] == 5)
        frame = followers.frame()
    assert list(frame["id"]) == [event.id for event in events]
    assert set(frame.who) == {"kitchen"}
    assert list(zip(frame.process, frame.connection, strict=True)) == [(1, 1)] * 5
    assert (frame["at"] >= frame["told_at"]).all()
    assert list(frame.added_at) == [0.002, 0.003, 0.004, 0.005, 0.006]  # as the stream in memory counts


def test_followers_are_not_entered_when_one_of_them_is_refused(world: World) -> None:
    nobody = Follower(name="nobody", urls=[world.url], token="household", topics=["orders"])
    with pytest.raises(Refused), Followers(follower(world), nobody):
        pass


def test_follower_that_is_slow_is_told_what_was_dropped(world: World) -> None:
    events = slow.mixed(600, household=7)
    with Followers(follower(world, "ops", "ops", window=1, each_s=0.001)) as followers:
        world.tell(*events)
        until(lambda: slow.is_through(followers, "ops", 600))
        took, gaps = followers.counts()["ops"], followers.gaps("ops")
    assert gaps
    assert took + sum(gap.count or 0 for gap in gaps) == 600


def test_followers_say_how_connections_ended() -> None:
    world = World()
    with Followers(follower(world)) as followers:
        world.close()
        until(followers.ends)
        assert followers.ends()[0].startswith("received 1012")


def test_all_have_what_they_were_told_or_told_that_they_have_not(world: World) -> None:
    with Followers(follower(world), follower(world, "other", "households/8")) as followers:
        world.tell(order_event(7))
        until(lambda: followers.counts()["kitchen"] == 1)
        assert slow.all_have(followers, ["kitchen"], 1)
        assert not slow.all_have(followers, ["kitchen", "other"], 1)


# -- asking


def orders(versions: Mapping[str, int]) -> FastAPI:
    app = FastAPI()

    @app.get("/orders")
    async def own() -> dict[str, Any]:
        return {"items": [{"order_id": order, "version": version} for order, version in versions.items()]}

    return app


async def test_who_asks_sees_each_newer_version_once() -> None:
    versions = {"a": 1}
    async with serving(orders(versions)) as address:
        asking = polling.Polling([f"http://{address}"], {1: "token"}, every_s=0.01)
        await asyncio.to_thread(asking.__enter__)
        await asyncio.to_thread(until, lambda: asking.requests >= 3)
        versions["a"] = 3
        await asyncio.to_thread(until, lambda: asking.known() == {"a": 3})
        await asyncio.to_thread(asking.__exit__, None, None, None)
    assert list(asking.frame().version) == [1, 3]
    assert asking.with_news == 2
    assert asking.requests > 3


async def test_who_asks_and_gets_an_error_says_so() -> None:
    async with serving(FastAPI()) as address:
        asking = polling.Polling([f"http://{address}"], {1: "token"}, every_s=0.01)
        await asyncio.to_thread(asking.__enter__)
        await asyncio.to_thread(until, asking._going_on.done)
        with pytest.raises(ExceptionGroup) as raised:
            await asyncio.to_thread(asking.__exit__, None, None, None)
    assert raised.group_contains(httpx.HTTPStatusError)


def test_step_that_was_passed_over_is_known_by_the_next_and_was_not_shown() -> None:
    steps = pd.DataFrame({"order_id": "a", "version": [1, 2], "at": [10.0, 10.1]})
    polled = pd.DataFrame({"order_id": ["a"], "version": [2], "at": [10.5]})
    pushed = pd.DataFrame({"subject": "orders/a", "data": [{"version": 1}, {"version": 2}], "at": [10.02, 10.12]})
    known = polling.latencies(steps, polled, pushed)
    assert list(known.ms.round()) == [500, 400, 20, 20]
    assert list(known.is_shown) == [False, True, True, True]


# -- strikes


def test_strike_waits_for_its_baskets_and_lasts_for_as_many_more() -> None:
    replay = Replay(10)
    done: list[str] = []

    def breaks() -> None:
        done.append(f"broken at {len(replay.answers)}")
        Timer(0.05, replay.answers.extend, [[{}] * 3]).start()

    strike = moving.Strike(
        name="killed",
        after=2,
        breaks=breaks,
        mends=lambda: done.append(f"mended at {len(replay.answers)}"),
        lasts=3,
    )
    strikes = moving.Strikes(strike)
    replay.answers.append({})
    strikes(replay)
    assert done == []
    replay.answers.append({})
    strikes(replay)
    strikes(replay)
    assert done == ["broken at 2", "mended at 5"]
    (began, ended) = strikes.since(0)["killed"]
    assert 0 < began <= ended <= time.time()


def test_strike_does_not_last_beyond_the_last_basket() -> None:
    replay = Replay(2, [{}, {}])
    strikes = moving.Strikes(moving.Strike(name="paused", after=1, breaks=moving.nothing, lasts=100))
    strikes(replay)
    assert "paused" in strikes.spans


def test_strike_under_which_the_replay_stands_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "until", lambda condition, what: until(condition, within="20 ms", what=what))
    strikes = moving.Strikes(moving.Strike(name="paused", after=1, breaks=moving.nothing, lasts=5))
    with pytest.raises(CheckFailed, match="orders are placed meanwhile"):
        strikes(Replay(9, [{}]))


def test_event_was_missed_if_it_was_in_the_stream_before_its_process_told_anything() -> None:
    frame = pd.DataFrame({"process": [1, 1, 2, 2], "told_at": [9.0, 10.1, 11.0, 11.9], "at": [10.0, 10.2, 12.0, 12.1]})
    frame["added_at"] = frame["told_at"] + 0.15  # the last one happened before, and came into the stream after
    seen = moving.deliveries(frame, began=10.0)
    assert list(seen.is_missed) == [False, False, True, False]
    assert list(seen.at_s.round(1)) == [0.0, 0.2, 2.0, 2.1]
    assert list(seen.late_ms.round()) == [1_000, 100, 1_000, 200]


# -- word by word


async def test_conversation_ends_with_the_code_of_who_is_not_let_in(world: World) -> None:
    heard = await knocking.conversation(world.url, {"type": "hello", "ticket": "of nobody"})
    assert [one["type"] for one in heard] == ["error", "closed"]
    assert heard[-1]["code"] == 1008


async def test_ticket_may_come_in_the_handshake(world: World) -> None:
    heard = await knocking.conversation(world.url, {"type": "ping", "ref": "1"}, ticket="staff")
    assert [one["type"] for one in heard] == ["welcome", "pong"]


async def test_refusal_of_a_topic_closes_nothing(world: World) -> None:
    say = {"type": "subscribe", "topics": ["orders"]}
    heard = await knocking.conversation(world.url, say, {"type": "ping"}, ticket="household")
    assert [one["type"] for one in heard] == ["welcome", "error", "pong"]


# -- slow ones, and many


def test_mixed_events_take_turns_and_versions_grow() -> None:
    events = slow.mixed(2 * slow.PRODUCTS * 3, household=7)
    assert {event.data["household_id"] for event in events[1::2]} == {7}
    versions = [event.data["version"] for event in events[::2] if event.subject == "products/1"]
    assert versions == [1, 2, 3]


def test_what_was_taken_is_numbered_as_it_was_told() -> None:
    events = [order_event(7), product_event(1, 1)]
    frame = pd.DataFrame({"id": [events[1].id], "at": [12.5]})
    (row,) = slow.taken(frame, events, began=10.0).to_dict("records")
    assert (row["number"], row["at_s"]) == (2, 2.5)


async def test_stalled_client_of_ours_is_let_in_and_reads_nothing(world: World) -> None:
    async with slow.stalled(world.url, 1, "staff", "orders") as (client,):
        world.tell(order_event(7))
        assert not client.transport.is_reading()


async def test_crowd_hears_each_event_once(world: World) -> None:
    async def tell(events: Any) -> list[float]:
        await asyncio.to_thread(world.tell, *events)
        return []

    async with crowd.gathered([world.url, world.url], "staff", "orders", 4) as everybody:
        heard = await everybody.hears(tell, [order_event(7), order_event(7)])
    assert heard.groupby("number").socket.nunique().to_dict() == {1: 4, 2: 4}
    assert heard.process.value_counts().to_dict() == {1: 4, 2: 4}
    assert (heard.ms > 0).all()


async def test_naive_server_has_a_task_for_each_message_that_nobody_reads() -> None:
    held = asyncio.Event()

    class Stalled:
        async def send(self, text: str) -> None:
            await held.wait()

    everybody = naive.Broadcast()
    everybody.connections.add(Stalled())  # type: ignore[arg-type]  # all that is asked of a connection
    for number in range(1_000):
        everybody.tell({"number": number})
    await asyncio.sleep(0)
    assert len(everybody._sending) == 1_000
    held.set()
    await asyncio.gather(*everybody._sending)


# -- looking


def test_gauges_are_read_from_what_a_process_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'showcase_realtime_now{what="sockets"} 3.0\nshowcase_realtime_total{what="closed 1013"} 2.0\n'
        'showcase_caching_total{what="hits"} 9.0\n'
    )
    answer = httpx.Response(200, text=text, request=httpx.Request("GET", "http://app/metrics"))
    monkeypatch.setattr(httpx, "get", lambda url, **options: answer)
    assert memory.gauges("http://app") == {"sockets": 3.0, "closed 1013": 2.0}


def test_process_that_nobody_is_is_not_found() -> None:
    with pytest.raises(LookupError, match="port 1"):
        memory.process_at("http://127.0.0.1:1")


class MemoryRedis:
    """As much of Redis as holds one stream."""

    def __init__(self, entries: list[tuple[str, dict[str, str]]]) -> None:
        self.entries = entries

    def xrange(self, key: str) -> list[tuple[str, dict[str, str]]]:
        return list(self.entries)

    def pipeline(self, *, transaction: bool) -> "MemoryRedis":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to do."""

    def unlink(self, key: str) -> None:
        self.entries = []

    def xadd(self, key: str, fields: dict[str, str], id: str) -> None:  # noqa: A002 - redis-py's name
        self.entries.append((id, fields))

    def execute(self) -> None:
        """All is done already."""


def test_stream_is_read_without_its_mark_and_loses_its_end() -> None:
    there = [(f"{number}-0", {"attributes": f'{{"id": "{number}"}}'}) for number in range(1, 5)]
    redis: Any = MemoryRedis([("0-0", {"epoch": "e"}), *there])
    assert stream.told(redis, "p:") == ["1", "2", "3", "4"]
    stream.lose_end(redis, "p:", 3)
    assert stream.told(redis, "p:") == ["1"]
    assert redis.entries[0] == ("0-0", {"epoch": "e"})


def test_gap_is_noted_under_who_was_told(world: World) -> None:
    with Followers(follower(world), follower(world, "other")) as followers:
        followers._gaps.append(("kitchen", Gap(topics=("orders",), why="too slow", count=3)))
        assert [gap.count for gap in followers.gaps("kitchen")] == [3]
        assert followers.gaps("other") == []
