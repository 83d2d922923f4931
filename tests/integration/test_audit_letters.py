"""Dead letters on real servers: every kind of bad input beside good ones, and replaying it when its cause is mended."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest

from showcase.audit.application.ports import Letter, Message
from showcase.audit.application.replaying import Dead, State, overview
from showcase.audit.infrastructure.letters import KafkaDeadLetters, make
from showcase.audit.wiring import dead_letter_topic, letter_box, replay_topic
from showcase.platform.settings import Settings
from tests.documents_others import closes_late
from tests.fakes import settings_of, until
from tests.integration.stacks import Ended, ended
from tests.integration.test_audit import CHECKOUT, Consumer, count, execute, place_order, produce, read, recorded
from tests.unit.test_audit import envelope
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
WITHIN_S = 60.0
IMPATIENT = {"SHOWCASE_KAFKA_TIMEOUT_S": "1"}
ROW_BYTES = 5_000_000
BROKER_BYTES = 33_554_432
"""`message.max.bytes` in server.properties."""


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["kafka", "mongo", "postgres", "connect"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


class Recording:
    """The consumer of some tables, started anew with other settings when it is to be mended."""

    def __init__(self, names: Namespace, *tables: str, **env: str) -> None:
        self.consumer = Consumer({**names.env, **env}, *tables)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.consumer.end()


async def letters(names: Namespace, *words: str, **env: str) -> Ended:
    """What `showcase audit letters …` says."""

    def run() -> Ended:
        command = [sys.executable, "-m", "showcase", "audit", "letters", *words]
        variables = {**os.environ, **names.env, "SHOWCASE_ENVIRONMENT": "workshop", **env}
        process = subprocess.Popen(
            command, env=variables, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return ended(process)

    return await asyncio.to_thread(run)


async def listed(names: Namespace) -> list[dict[str, Any]]:
    result = await letters(names, "list", "--json")
    assert result.code == 0, result.errors
    found: list[dict[str, Any]] = json.loads(result.output)
    return found


async def seen(names: Namespace) -> Sequence[Dead]:
    """What the list shows, without a process for each look."""
    return await overview(letter_box(settings_of(names.env)))


async def states(names: Namespace) -> dict[str, str]:
    """By place, without the topic."""
    return {one.place.split(":", 1)[1]: one.state.value for one in await seen(names)}


async def replayed(names: Namespace, *words: str) -> str:
    result = await letters(names, "replay", *words)
    assert result.code == 0, result.errors
    return result.output.strip()


async def settled(names: Namespace, number: int, state: str) -> None:
    """Wait until so many letters, and no more, have all one state."""

    async def all_have_it() -> bool:
        return list((await states(names)).values()) == [state] * number

    await until(all_have_it, within_s=WITHIN_S)


async def reached(settings: Settings, total: int, *, within_s: float = WITHIN_S) -> None:
    async def is_there() -> bool:
        return await count(settings) >= total

    await until(is_there, within_s=within_s)


def bad() -> list[bytes]:
    """One of each kind."""
    whole = json.loads(envelope("c", table="orders", lsn=1))
    far = {**whole, "source": {**whole["source"], "ts_ms": 10**14}}
    return [
        b'{"op": "c", "source": {',
        b"\xff\x00\x1b[2J",
        b'{"op": "c"}',
        envelope("c", table="strangers", lsn=2),
        envelope("c", table="orders", lsn=3, after={"n": 2**70}),
        json.dumps(far).encode(),
        envelope("x", table="orders", lsn=4),
    ]


async def test_every_kind_of_bad_message_is_put_away_and_what_debezium_captures_goes_on(names: Namespace) -> None:
    settings = settings_of(names.env)
    topic = f"{names.topic_prefix}public.orders"
    names.capture(["orders"])
    for _ in range(5):
        place_order(names, uuid4())
    produce(names, topic, bad())
    for _ in range(5):
        place_order(names, uuid4())

    with Recording(names, "orders"):
        await reached(settings, 10)
        await settled(names, len(bad()), "open")
        told = len(read(names, topic, 10 + len(bad())))
        assert told == await count(settings) + len(await listed(names))

        assert await replayed(names, "--all") == f"{len(bad())} replayed"
        await settled(names, len(bad()), "failed again")
        assert await replayed(names, "--all") == f"{len(bad())} replayed"

        async def twice() -> bool:
            return [(one.replays, one.state) for one in await seen(names)] == [(2, State.FAILED)] * len(bad())

        await until(twice, within_s=WITHIN_S)
    assert await count(settings) == 10
    reasons = sorted(one["reason"] for one in await listed(names))
    assert len(set(reasons)) == len(bad()), reasons
    assert {one["newest_place"].split(":")[0] for one in await listed(names)} == {replay_topic(settings)}
    assert {one["place"].split(":")[0] for one in await listed(names)} == {topic}


async def test_replayed_letter_becomes_one_record_when_its_table_is_audited(names: Namespace) -> None:
    settings = settings_of(names.env)
    topic = f"{names.topic_prefix}public.orders"
    produce(names, topic, [envelope("c", table="things", lsn=n, after={"n": n}) for n in range(3)])
    produce(names, topic, [envelope("c", table="orders", lsn=9)])
    with Recording(names, "orders"):
        await reached(settings, 1)
        await settled(names, 3, "open")

    assert await replayed(names, f"{topic}:0:1") == "1 replayed"
    with Recording(names, "orders", "things"):
        await reached(settings, 2, within_s=30)

        async def one_is_recorded() -> bool:
            return await states(names) == {"0:2": "open", "0:1": "recorded", "0:0": "open"}

        await until(one_is_recorded, within_s=WITHIN_S)
        assert await replayed(names, "--all") == "2 replayed"
        await settled(names, 3, "recorded")
        assert await replayed(names, "--all") == "0 replayed"
        assert await replayed(names, f"{topic}:0:0", f"{topic}:0:1") == "2 replayed"  # whoever insists

        async def both_again() -> bool:
            return sorted(one.replays for one in await seen(names)) == [1, 2, 2]

        await until(both_again, within_s=WITHIN_S)
        await settled(names, 3, "recorded")
    assert [one["after"] for one in await recorded(settings, "things")] == [{"n": n} for n in range(3)]
    assert await count(settings) == 4


async def test_row_of_five_megabytes_is_put_away_and_becomes_a_record_when_the_limit_is_raised(
    names: Namespace,
) -> None:
    settings = settings_of(names.env)
    execute(
        names,
        "CREATE TABLE pages (page_id int PRIMARY KEY, text text)",
        "ALTER TABLE pages REPLICA IDENTITY FULL",
    )
    names.capture(["pages"])
    execute(
        names,
        "INSERT INTO pages VALUES (1, 'short')",
        "INSERT INTO pages VALUES (2, repeat('x', %(size)s))",
        "UPDATE pages SET text = repeat('y', %(size)s) WHERE page_id = 2",
        "INSERT INTO pages VALUES (3, 'short')",
        size=ROW_BYTES,
    )

    with Recording(names, "pages"):
        await reached(settings, 2)
        await settled(names, 2, "open")
        assert await replayed(names, "--all") == "2 replayed"
        await settled(names, 2, "failed again")
    update, insert = await listed(names)
    assert insert["bytes"] > ROW_BYTES
    assert update["bytes"] > 2 * ROW_BYTES
    assert "bytes" in update["reason"]
    assert await replayed(names, "--all") == "2 replayed"
    with Recording(names, "pages", SHOWCASE_AUDIT_MAX_BYTES="12000000"):
        await reached(settings, 4)
        await settled(names, 2, "recorded")
        assert await replayed(names, "--all") == "0 replayed"

    short, inserted, updated, last = sorted(await recorded(settings, "pages"), key=lambda one: one["position"])
    assert (short["after"]["text"], last["after"]["text"]) == ("short", "short")
    assert inserted["after"]["text"] == updated["before"]["text"] == "x" * ROW_BYTES
    assert updated["after"]["text"] == "y" * ROW_BYTES


async def put_away(names: Namespace, *messages: Message, reason: str = "broken") -> KafkaDeadLetters:
    settings = settings_of(names.env)
    url = settings.url("kafka_url")
    await make(url, [dead_letter_topic(settings)], settings.audit_letters_kept)
    box = KafkaDeadLetters(url, dead_letter_topic(settings))
    await box.add([Letter(message, reason) for message in messages])
    return box


def stood_at(offset: int, value: bytes, **more: Any) -> Message:
    return Message(topic="t", partition=0, offset=offset, key=b"k", value=value, **more)


async def test_letters_that_a_crash_put_away_twice_are_listed_once(names: Namespace) -> None:
    some = [stood_at(offset, b"{") for offset in range(3)]
    await put_away(names, *some)
    await put_away(names, *some)  # whoever took over after the crash

    assert [one["place"] for one in await listed(names)] == ["t:0:2", "t:0:1", "t:0:0"]
    shortened = (await letters(names, "list", "--limit", "2")).output
    assert "t:0:0" not in shortened
    assert "there are 1 more" in shortened
    assert await replayed(names, "--all") == "3 replayed"
    assert await states(names) == {"0:2": "waiting", "0:1": "waiting", "0:0": "waiting"}


async def test_replay_is_the_message_as_it_was(names: Namespace) -> None:
    headers = [("epoch", b"3"), ("x-colour", b"red")]
    await put_away(names, stood_at(0, b"{"), stood_at(5, b"\x00v", headers=headers), stood_at(9, b"["))

    assert await replayed(names, "t:0:5") == "1 replayed"

    (again,) = read(names, replay_topic(settings_of(names.env)), 1)
    assert (again.key(), again.value()) == (b"k", b"\x00v")
    assert again.headers() == [*headers, ("x-replayed-from", b"t:0:5")]


async def test_largest_message_that_the_broker_takes_can_be_put_away_and_replayed(names: Namespace) -> None:
    largest = b"x" * (BROKER_BYTES - 100)
    await put_away(names, stood_at(0, largest), reason="e" * 2_000)

    assert await replayed(names, "--all") == "1 replayed"
    (again,) = read(names, replay_topic(settings_of(names.env)), 1)
    assert again.value() == largest


async def test_message_that_pretends_to_be_a_replay_is_a_letter_of_its_own(names: Namespace) -> None:
    await put_away(names, stood_at(0, b"{"), stood_at(1, b"[", headers=[("x-replayed-from", b"t:0:0")]))

    assert await states(names) == {"0:0": "open", "0:1": "open"}


async def test_letter_is_shown_with_its_headers_and_cannot_steer_the_terminal(names: Namespace) -> None:
    await put_away(names, stood_at(0, b"\x1b[2Jclear", headers=[("a\x07", b"\xff")]), reason="no \x1b[31m")

    shown = await letters(names, "show", "t:0:0")
    rows = await letters(names, "list")

    assert (shown.code, rows.code) == (0, 0)
    assert "\x1b" not in shown.output + rows.output
    lines = shown.output.splitlines()
    assert {"place: t:0:0", "state: open", "header a\ufffd: 0xff", "key: k", "value: \ufffd[2Jclear"} <= set(lines)


async def test_letter_older_than_letters_are_kept_is_no_longer_listed(names: Namespace) -> None:
    await put_away(names, stood_at(0, b"{"))

    assert len(await listed(names)) == 1
    result = await letters(names, "list", "--json", SHOWCASE_AUDIT_LETTERS_KEPT="PT0S")
    assert json.loads(result.output) == []


async def test_wrong_places_and_options_are_told_and_replay_nothing(names: Namespace) -> None:
    nothing_yet = await letters(names, "list")
    unknown = await letters(names, "replay", "t:0:7")
    unsaid = await letters(names, "replay")
    both = await letters(names, "replay", "t:0:7", "--all")

    assert (nothing_yet.code, len(nothing_yet.output.splitlines())) == (0, 1)
    assert await replayed(names, "--all") == "0 replayed"
    assert unknown.code == 1
    assert unknown.errors == "error: there is no letter of t:0:7: see `audit letters list`\n"
    assert (unsaid.code, both.code) == (2, 2)


@pytest.mark.parametrize("words", [["list"], ["show", "t:0:0"], ["replay", "--all"]], ids=lambda words: words[0])
async def test_kafka_that_is_away_is_one_line(names: Namespace, words: list[str]) -> None:
    result = await letters(names, *words, SHOWCASE_KAFKA_URL="kafka://user:secret@127.0.0.1:1", **IMPATIENT)

    assert result.code == 1
    assert result.errors.startswith("error: kafka does not answer")
    assert len(result.errors.splitlines()) == 1
    assert "secret" not in result.errors


async def test_kafka_that_is_paused_is_one_line(private: Stack, names: Namespace) -> None:
    await put_away(names, stood_at(0, b"{"))
    private.server("kafka").pause()
    try:
        result = await letters(names, "list", **IMPATIENT)
    finally:
        private.server("kafka").resume()

    assert (result.code, len(result.errors.splitlines())) == (1, 1)
    assert await states(names) == {"0:0": "open"}
