"""What an operator sees and does, over the fakes; what is read from a parked message; what monitoring sees."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from showcase.cli.messages import plain
from showcase.kernel.errors import Unavailable
from showcase.kernel.ids import new_uuid
from showcase.messaging.api import gauges, place_of
from showcase.messaging.application.operations import (
    BATCH,
    AlreadySettled,
    BadReason,
    NoSuchMessage,
    NoSuchQueue,
    Operations,
    Rate,
    Replayed,
)
from showcase.messaging.application.parked import Parked, State
from showcase.messaging.application.parking_lot import Which
from showcase.messaging.domain import DEFAULT_EXCHANGE, Message, Outcome, Route
from showcase.messaging.worker import parking
from showcase.messaging.worker.parking import ingest
from showcase.platform.slices import Gauge
from showcase.platform.web import metrics
from showcase.platform.web.paging import BadCursor, cursor_of
from tests.fakes_outbox import Memory, MemoryOutbox
from tests.fakes_parked import Delivered, MemoryParkingLot, delivered

pytestmark = pytest.mark.anyio
ADA = "staff/ada"
ALL = Which()


class Desk:
    """The operations, and what is behind them."""

    def __init__(self) -> None:
        memory = Memory()
        self.outbox = MemoryOutbox(memory)
        self.outboxes = {"public": self.outbox, "payment": MemoryOutbox(memory, schema="payment")}
        self.lot = MemoryParkingLot(memory, self.outboxes)
        self.away = False
        self.operations = Operations(
            transaction=memory.transaction,
            lot=self.lot,
            send=self.outbox.send,
            outboxes=self.outboxes,
            queues=("payment", "retry.1s"),
            consumed=("payment", "stock"),
            depths=self.depths,
            rates=self.rates,
        )

    async def depths(self, names: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        return {"payment": (3, 1), "retry.1s": (2, 0)}

    async def rates(self) -> Mapping[str, Rate]:
        if self.away:
            raise Unavailable("away")
        return {"payment": Rate(1.5, 0.5)}

    async def parked(self, queue: str = "payment", **more: Any) -> str:
        """A parked message; its id."""
        one = Parked.of(delivered(queue, **more))
        await self.lot.add([one])
        return str(one.parked_id)

    async def stranded(self, schema: str = "payment", type_: str = "t.v1") -> str:
        """A message that cannot be published; its id."""
        sent = Message(attributes={"id": str(new_uuid()), "type": type_}, body=b"{}", route=Route("", "gone"))
        await self.outboxes[schema].send(sent)

        async def unroutable(messages: Sequence[Message]) -> Sequence[Outcome]:
            return [Outcome.UNROUTABLE for _ in messages]

        await self.outboxes[schema].relay(unroutable, 1)
        return f"outbox:{schema}:{len(self.outboxes[schema].rows)}"

    @property
    def sent(self) -> list[Message]:
        return [row.message for row in self.outbox.rows.values()]

    async def done(self, id_: str) -> list[tuple[str, str, str]]:
        found = await self.operations.message(id_)
        return [(action.actor, action.action, action.reason) for action in found.actions]


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- what is read from a message


DEATH = {"reason": "delivery_limit", "queue": "stock", "count": 1}
EXPIRED = {"reason": "expired", "queue": "retry.1s", "count": 1}
REASONS: dict[str, tuple[dict[str, object], str, str]] = {
    "our consumer": ({"x-queue": "stock", "x-reason": "out of range"}, "stock", "out of range"),
    "the broker": ({"x-death": [DEATH, EXPIRED]}, "stock", "its consumer died with it"),
    "the broker, after a retry": ({"x-death": [DEATH], "x-reason": "slow"}, "stock", "allows; before that: slow"),
    "refused": ({"x-death": [{**DEATH, "reason": "rejected"}]}, "stock", "refused it"),
    "an unknown reason": ({"x-death": [{**DEATH, "reason": "eaten"}]}, "stock", "RabbitMQ says 'eaten'"),
    "nobody": ({}, "", "nobody says why"),
    "nonsense": ({"x-death": "x", "x-reason": 7}, "", "nobody says why"),
}


@pytest.mark.parametrize("who", REASONS)
def test_why_a_message_is_parked_is_told_in_plain_words(who: str) -> None:
    headers, queue, words = REASONS[who]
    parked = Parked.of(Delivered({}, headers))
    assert parked.queue == queue
    assert words in parked.reason


def test_the_same_event_parked_twice_is_one_entry_and_after_a_replay_another() -> None:
    one = delivered()
    later = replace(one, headers={**one.headers, "x-parked-at": "later", "x-delivery-count": 1})
    again = replace(one, headers={**one.headers, "x-replays": 1})

    assert Parked.of(one).parked_id == Parked.of(later).parked_id
    assert Parked.of(again).parked_id != Parked.of(one).parked_id


@pytest.mark.parametrize("change", [{"body": b"2"}, {"attributes": {"id": "1", "source": "/other"}}])
def test_events_of_two_strangers_with_one_id_are_two_entries(change: dict[str, Any]) -> None:
    one = Delivered({"id": "1", "source": "/s"}, {"x-queue": "stock"}, b"1")
    assert Parked.of(one).parked_id != Parked.of(replace(one, **change)).parked_id


def test_a_message_without_an_id_is_known_by_all_it_has() -> None:
    one = Delivered({}, {"sort": 1}, b"1")
    again = Delivered({}, {"sort": 1, "x-delivery-count": 3}, b"1")
    other = Delivered({}, {"sort": 2}, b"1")

    assert Parked.of(one).parked_id == Parked.of(again).parked_id
    assert Parked.of(one).parked_id != Parked.of(other).parked_id


@pytest.mark.parametrize(("count", "read"), [(3, 3), (-1, 0), (2**63, 1_000_000), ("3", 0), (True, 0), (None, 0)])
def test_counts_of_strangers_are_numbers_within_bounds(count: object, read: int) -> None:
    parked = Parked.of(Delivered({}, {"x-replays": count, "x-attempt": count}))
    assert (parked.replays, parked.attempts) == (read, read)


# -- what can be done


async def test_a_replayed_message_goes_straight_to_its_queue_and_to_no_other(desk: Desk) -> None:
    headers: dict[str, Any] = {"x-replays": 1}
    id_ = await desk.parked(body=b'{"a": 1}', **headers)
    before = await desk.operations.message(id_)
    await desk.operations.replay(id_, ADA)

    (sent,) = desk.sent
    assert sent.route == Route(DEFAULT_EXCHANGE, "payment")
    assert (sent.attributes, sent.body) == (before.attributes, b'{"a": 1}')
    assert sent.headers == {"x-replays": 2}, "it begins at the foot of the retry ladder"
    assert (await desk.operations.message(id_)).entry.state is State.REPLAYED
    assert await desk.done(id_) == [(ADA, "replay", "")]


async def test_a_message_is_replayed_once(desk: Desk) -> None:
    id_ = await desk.parked()
    await desk.operations.replay(id_, ADA)

    with pytest.raises(AlreadySettled, match="replayed"):
        await desk.operations.replay(id_, ADA)
    with pytest.raises(AlreadySettled, match="replayed"):
        await desk.operations.discard(id_, ADA, "late")
    assert len(desk.sent) == 1
    assert await desk.done(id_) == [(ADA, "replay", "")]


async def test_a_message_that_could_not_be_sent_back_is_still_parked(desk: Desk) -> None:
    id_ = await desk.parked()
    desk.outbox.is_full = True

    with pytest.raises(MemoryError):
        await desk.operations.replay(id_, ADA)
    assert (await desk.operations.message(id_)).entry.state is State.PARKED
    assert await desk.done(id_) == []


@pytest.mark.parametrize("queue", ["", "parking", "gone"])
async def test_nothing_is_replayed_to_a_queue_that_nobody_consumes(desk: Desk, queue: str) -> None:
    id_ = await desk.parked(queue)

    with pytest.raises(NoSuchQueue):
        await desk.operations.replay(id_, ADA)
    assert await desk.operations.replay_all(ALL, ADA) == Replayed(0, False)
    assert desk.sent == []
    assert (await desk.operations.message(id_)).entry.state is State.PARKED


async def test_a_message_that_could_not_be_published_is_released_once(desk: Desk) -> None:
    id_ = await desk.stranded()
    await desk.operations.replay(id_, ADA)

    assert (await desk.outboxes["payment"].waiting()).waiting == 1
    with pytest.raises(NoSuchMessage):
        await desk.operations.replay(id_, ADA)
    await desk.stranded()
    assert await desk.done(id_) == [(ADA, "replay", "")]


async def test_a_message_is_given_up_for_a_reason_that_is_written_down(desk: Desk) -> None:
    parked, stranded = await desk.parked(), await desk.stranded()
    for id_ in (parked, stranded):
        await desk.operations.discard(id_, ADA, "  of a test ")

    assert await desk.done(parked) == [(ADA, "discard", "of a test")]
    assert (await desk.operations.message(parked)).entry.state is State.DISCARDED
    assert desk.outboxes["payment"].rows == {}
    assert (await desk.operations.parked(ALL, None, 10))[0] == []


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "two\nlines", "a\x00b", "\x1b[2J"])
async def test_without_a_reason_nothing_is_given_up(desk: Desk, reason: str) -> None:
    id_ = await desk.parked()
    with pytest.raises(BadReason):
        await desk.operations.discard(id_, ADA, reason)
    assert (await desk.operations.message(id_)).entry.state is State.PARKED


CALLS: dict[str, Callable[[Operations, str], Any]] = {
    "message": lambda operations, id_: operations.message(id_),
    "replay": lambda operations, id_: operations.replay(id_, ADA),
    "discard": lambda operations, id_: operations.discard(id_, ADA, "why"),
}
NOBODYS = [
    "nonsense",
    "",
    str(new_uuid()),
    "outbox:public:1",
    "outbox:nowhere:1",
    "outbox:public:0",
    f"outbox:public:{2**64}",
    "x" * 100_000,
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("id_", NOBODYS, ids=range(len(NOBODYS)))
async def test_an_id_of_no_message_is_told(desk: Desk, call: str, id_: str) -> None:
    with pytest.raises(NoSuchMessage) as told:
        await CALLS[call](desk.operations, id_)
    assert len(told.value.detail) < 200


async def test_an_id_in_another_spelling_is_written_down_in_the_one_of_the_list(desk: Desk) -> None:
    id_ = await desk.parked()
    await desk.operations.discard("{" + id_.upper() + "}", ADA, "why")
    assert await desk.done(id_) == [(ADA, "discard", "why")]


async def test_all_of_a_filter_are_replayed_the_oldest_first(desk: Desk) -> None:
    first = await desk.parked(type_="a.v1")
    last = await desk.parked(type_="a.v1")
    stranded = await desk.stranded(type_="a.v1")
    left = [await desk.parked(type_="b.v1"), await desk.parked("stock", type_="b.v1")]

    assert await desk.operations.replay_all(Which(type="a.v1"), ADA) == Replayed(3, False)
    ids = [(await desk.operations.message(id_)).attributes["id"] for id_ in (first, last)]
    assert [sent.attributes["id"] for sent in desk.sent] == ids
    assert (await desk.outboxes["payment"].waiting()).waiting == 1
    page, _ = await desk.operations.parked(ALL, None, 10)
    assert [entry.id for entry in page] == left[::-1]
    assert await desk.operations.replay_all(Which(queue="stock"), ADA) == Replayed(1, False)
    assert stranded not in [entry.id for entry in page]


async def test_a_message_that_fails_again_meanwhile_is_not_replayed_again(desk: Desk) -> None:
    for _ in range(3):
        await desk.parked()

    async def fails_at_once(message: Message) -> None:
        await desk.outbox.send(message)
        headers: dict[str, Any] = dict(message.headers)
        await desk.lot.add([Parked.of(delivered(**headers))])

    operations = replace(desk.operations, send=fails_at_once)
    assert await operations.replay_all(ALL, ADA) == Replayed(3, False)
    assert len((await operations.parked(ALL, None, 10))[0]) == 3


async def test_many_are_replayed_in_transactions_of_a_bounded_size_and_no_more_than_asked_for(desk: Desk) -> None:
    for _ in range(2 * BATCH + 5):
        await desk.parked()
    opened: list[object] = []

    def counted() -> Any:
        opened.append(None)
        return desk.operations.transaction()

    operations = replace(desk.operations, transaction=counted)
    assert await operations.replay_all(ALL, ADA, limit=2 * BATCH) == Replayed(2 * BATCH, True)
    assert len(opened) == 2
    assert await operations.replay_all(ALL, ADA, limit=5) == Replayed(5, False)


async def test_when_somebody_else_replays_them_all_it_ends(desk: Desk) -> None:
    await desk.parked()

    async def nothing(ids: Sequence[UUID], state: State) -> Sequence[Parked]:
        return []

    desk.lot.settle = nothing  # type: ignore[method-assign]  # as if all were locked
    assert await desk.operations.replay_all(ALL, ADA) == Replayed(0, True)


async def test_to_replay_from_an_unknown_queue_is_refused(desk: Desk) -> None:
    with pytest.raises(NoSuchQueue, match="payment, stock, outbox:public"):
        await desk.operations.replay_all(Which(queue="paiment"), ADA)


# -- what is seen


async def test_pages_end_where_there_is_no_more(desk: Desk) -> None:
    ids = [await desk.parked() for _ in range(3)]

    first, place = await desk.operations.parked(ALL, None, 2)
    last, end = await desk.operations.parked(ALL, place, 2)
    assert [entry.id for entry in (*first, *last)] == ids[::-1]
    assert end is None


async def test_rates_are_left_out_when_nobody_measures_them(desk: Desk) -> None:
    seen = await desk.operations.queue_states()
    assert [(one.name, one.ready, one.consumers, one.rate) for one in seen] == [
        ("payment", 3, 1, Rate(1.5, 0.5)),
        ("retry.1s", 2, 0, None),
    ]
    desk.away = True
    assert [one.rate for one in await desk.operations.queue_states()] == [None, None]
    assert [one.rate for one in await replace(desk.operations, rates=None).queue_states()] == [None, None]


async def test_gauges_tell_backlogs_and_know_no_queue_of_strangers(desk: Desk) -> None:
    await desk.outbox.send(Message(attributes={}, body=b"", route=Route("", "x")))
    await desk.stranded()
    for queue in ("payment", "payment", "forged", "forged too"):
        await desk.parked(queue)

    seen = {gauge.name: gauge.values for gauge in await gauges(desk.operations)}
    assert seen["showcase_outbox_waiting_messages"] == {"public": 1, "payment": 0}
    assert 0 <= seen["showcase_outbox_oldest_seconds"]["public"] < 60
    assert seen["showcase_outbox_oldest_seconds"]["payment"] == 0
    assert seen["showcase_outbox_parked_messages"] == {"public": 0, "payment": 1}
    assert seen["showcase_parked_messages"] == {"payment": 2, "stock": 0, "other": 2}


@pytest.mark.parametrize(
    "cursor", [cursor_of("2026-01-01", "x"), cursor_of("now", "x"), cursor_of("2026-01-01T00:00:00+00:00", "\x00")]
)
def test_a_cursor_of_no_place_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        place_of(cursor)


def test_nothing_in_a_table_steers_the_terminal() -> None:
    assert plain("a\x1b[2J\nb\x9b✓") == "a\ufffd[2J\ufffdb\ufffd✓"


# -- what monitoring reads


async def scraped(*answers: Callable[[], Any], times: int = 1) -> list[str]:
    """The answers of `/metrics` with these slices, asked for at once."""
    app = FastAPI()
    app.include_router(metrics.routes({f"slice{number}": answer for number, answer in enumerate(answers)}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answered = await asyncio.gather(*(client.get("/metrics") for _ in range(times)))
    assert {one.headers["content-type"] for one in answered} == {"text/plain; version=0.0.4; charset=utf-8"}
    return [one.text for one in answered]


async def fine() -> Sequence[Gauge]:
    return [Gauge(name="showcase_a_seconds", help="A.", label="of", values={'x"\\\n': 1.5, "y": 1_234_567})]


async def away() -> Sequence[Gauge]:
    raise Unavailable("away")


async def test_gauges_are_told_in_the_text_format() -> None:
    (text,) = await scraped(fine)
    assert text == (
        "# HELP showcase_up Whether a slice could be asked.\n"
        "# TYPE showcase_up gauge\n"
        'showcase_up{slice="slice0"} 1\n'
        "# HELP showcase_a_seconds A.\n"
        "# TYPE showcase_a_seconds gauge\n"
        'showcase_a_seconds{of="x\\"\\\\\\n"} 1.5\n'
        'showcase_a_seconds{of="y"} 1234567\n'
    )


async def test_a_slice_whose_server_is_away_keeps_no_other_back() -> None:
    (text,) = await scraped(away, fine)
    assert 'showcase_up{slice="slice0"} 0' in text
    assert 'showcase_a_seconds{of="y"}' in text


async def test_who_asks_often_asks_the_servers_once() -> None:
    asked: list[object] = []

    async def counted() -> Sequence[Gauge]:
        asked.append(None)
        return []

    first, *others = await scraped(counted, times=5)
    assert len(asked) == 1
    assert set(others) == {first}


# -- the keeper of the parking lot


class Broker:
    """The consumer's side of a broker that hands over what it is given."""

    def __init__(self, *deliveries: Delivered | None) -> None:
        self.queue: asyncio.Queue[Delivered | None] = asyncio.Queue()
        for delivery in deliveries:
            self.queue.put_nowait(delivery)
        self.acknowledged: list[list[Delivered]] = []
        self.handed_back = False
        self.stop = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        raise NotImplementedError

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[Delivered | None]":
        return self.queue

    async def hand_back(self) -> None:
        self.handed_back = True

    def acknowledge(self, deliveries: Sequence[Delivered]) -> None:
        self.acknowledged.append(list(deliveries))
        if self.queue.empty():
            self.stop.set()

    def check(self) -> None:
        raise Unavailable("the connection was lost")


async def test_messages_are_kept_and_then_acknowledged_until_told_to_stop(desk: Desk) -> None:
    arrived = [delivered() for _ in range(parking.BATCH + 1)]
    broker = Broker(*arrived)
    await asyncio.wait_for(ingest(broker, "parking", desk.lot, broker.stop), 5)

    assert broker.acknowledged == [arrived[: parking.BATCH], arrived[parking.BATCH :]]
    assert len((await desk.operations.parked(ALL, None, 100))[0]) == len(arrived)
    assert broker.handed_back


async def test_a_batch_has_a_bounded_number_of_bytes(desk: Desk) -> None:
    large = [delivered(body=bytes(parking.BATCH_BYTES)) for _ in range(2)]
    broker = Broker(*large)
    await asyncio.wait_for(ingest(broker, "parking", desk.lot, broker.stop), 5)
    assert broker.acknowledged == [[one] for one in large]


async def test_what_could_not_be_kept_is_not_acknowledged(desk: Desk) -> None:
    async def fails(parked: Sequence[Parked]) -> int:
        raise Unavailable("away")

    desk.lot.add = fails  # type: ignore[method-assign]  # a database that is away
    broker = Broker(delivered())
    with pytest.raises(Unavailable):
        await ingest(broker, "parking", desk.lot, broker.stop)
    assert broker.acknowledged == []


async def test_a_lost_connection_is_told_after_what_came_before_it_is_kept(desk: Desk) -> None:
    broker = Broker(delivered(), None)
    with pytest.raises(Unavailable, match="lost"):
        await asyncio.wait_for(ingest(broker, "parking", desk.lot, broker.stop), 5)
    assert len(broker.acknowledged) == 1
    assert not broker.handed_back


async def test_told_to_stop_while_it_waits_it_stops(desk: Desk) -> None:
    broker = Broker()
    running = asyncio.create_task(ingest(broker, "parking", desk.lot, broker.stop))
    await asyncio.sleep(0)
    broker.stop.set()
    await asyncio.wait_for(running, 5)
    assert broker.handed_back
