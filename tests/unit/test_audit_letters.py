"""Dead letters over a box in memory: each message once, what became of it, and what is replayed."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException

from showcase.audit.application import replaying
from showcase.audit.application.ports import Letter, Message, Partition
from showcase.audit.application.replaying import Found, NoSuchLetter, Replay, State, overview
from showcase.audit.infrastructure.letters import ELECTING, MAX_REASON, headers_of, once_led, replayed_headers
from showcase.cli.audit_letters import SHOWN, shown

pytestmark = pytest.mark.anyio
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryLetterBox:
    """Letters, replays, and a recorder that gets on when it is told to."""

    def __init__(self) -> None:
        self.there: list[Found] = []
        self.sent: list[Replay] = []
        self.at = 0
        self.busy = False

    def put(self, place: str, origin: str = "", reason: str = "broken") -> None:
        number = len(self.there)
        at = BEGAN + timedelta(seconds=number)
        self.there.append(Found((0, number), place, origin or place, reason, 1, at))

    def record(self, *, fails: bool = False) -> None:
        """Handle all that was replayed."""
        for replay in self.sent[self.at :]:
            if fails:
                self.put(replay.place, replay.origin, "still broken")
        self.at = len(self.sent)

    async def handled(self) -> Mapping[Partition, int]:
        return {("replayed", 0): self.at}

    async def replays(self) -> Sequence[Replay]:
        return tuple(self.sent)

    async def letters(self) -> Sequence[Found]:
        letters = tuple(self.there)
        if self.busy:
            self.record(fails=True)
        return letters

    async def message(self, letter: Found) -> Message:
        return Message(topic="letters", partition=letter.at[0], offset=letter.at[1], key=None, value=b"")

    async def replay(self, letters: Collection[Found]) -> int:
        for letter in letters:
            self.sent.append(Replay(letter.origin, ("replayed", 0), len(self.sent)))
        return len(letters)


async def states(box: MemoryLetterBox) -> dict[str, State]:
    return {one.place: one.state for one in await overview(box)}


async def test_letter_that_was_put_away_twice_is_one_and_the_newest_comes_first() -> None:
    box = MemoryLetterBox()
    for place in ("t:0:1", "t:0:2", "t:0:1"):
        box.put(place)

    assert [one.place for one in await overview(box)] == ["t:0:1", "t:0:2"]
    assert await replaying.replay_all(box) == 2


async def test_letter_is_open_then_waiting_then_recorded() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    assert await states(box) == {"t:0:1": State.OPEN}
    assert await replaying.replay_all(box) == 1
    assert await states(box) == {"t:0:1": State.WAITING}
    box.record()
    assert await states(box) == {"t:0:1": State.RECORDED}


async def test_replaying_all_twice_replays_nothing_that_waits_or_is_recorded() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    box.put("t:0:2")

    assert await replaying.replay_all(box) == 2
    assert await replaying.replay_all(box) == 0
    box.record()
    assert await replaying.replay_all(box) == 0


async def test_replayed_letter_that_fails_again_is_the_same_letter_with_its_newest_reason() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    await replaying.replay_all(box)
    box.record(fails=True)

    (one,) = await overview(box)
    assert (one.place, one.state, one.replays) == ("t:0:1", State.FAILED, 1)
    assert (one.newest.place, one.newest.reason) == ("replayed:0:0", "still broken")
    assert await replaying.replay_all(box) == 1
    box.record()
    assert await states(box) == {"t:0:1": State.RECORDED}


async def test_letter_of_which_one_replay_was_recorded_is_recorded_whatever_became_of_others() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    await replaying.replay_all(box)
    box.record()
    await replaying.replay(box, ["t:0:1"])
    box.record(fails=True)

    assert await states(box) == {"t:0:1": State.RECORDED}


async def test_letter_that_fails_while_somebody_looks_is_not_taken_for_recorded() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    await replaying.replay_all(box)
    box.busy = True  # the recorder puts it away and goes on when the letters were just read

    assert await states(box) == {"t:0:1": State.WAITING}
    assert await states(box) == {"t:0:1": State.FAILED}


async def test_letter_is_found_by_each_of_its_places_and_an_unknown_one_replays_nothing() -> None:
    box = MemoryLetterBox()
    box.put("t:0:1")
    await replaying.replay_all(box)
    box.record(fails=True)

    assert await replaying.replay(box, ["t:0:1", "replayed:0:0", "t:0:1"]) == 1
    with pytest.raises(NoSuchLetter, match="t:0:9"):
        await replaying.replay(box, ["t:0:1", "t:0:9"])
    assert len(box.sent) == 2


def test_replay_gives_the_message_back_its_own_headers_and_says_where_it_stood() -> None:
    own = [("epoch", b"1"), ("x-colour", None)]
    message = Message(topic="t", partition=0, offset=7, key=b"k", value=b"v", headers=own)
    put_away = headers_of(Letter(message, "é" * 2_000))

    assert put_away[:3] == [*own, ("x-place", b"t:0:7")]
    assert len(put_away[3][1] or b"") == MAX_REASON
    assert replayed_headers(put_away, "t:0:7") == [*own, ("x-replayed-from", b"t:0:7")]
    assert replayed_headers(replayed_headers(put_away, "t:0:7"), "t:0:7") == [*own, ("x-replayed-from", b"t:0:7")]


def test_what_is_in_a_letter_is_shown_within_bounds_and_steers_no_terminal() -> None:
    assert shown(None) == "none"
    assert shown(b"\x1b[2Jq\n") == "\ufffd[2Jq\ufffd"
    assert shown(b"\xff\x00") == "0xff00"
    assert shown(b"a" * 5_000) == "a" * SHOWN + " … 5,000 bytes"
    assert shown(b"\xff" * 5_000) == "0x" + "ff" * SHOWN + " … 5,000 bytes"


class Electing:
    """Partitions whose leader is elected while they are asked for some times."""

    def __init__(self, code: int, times: int) -> None:
        self.code = code
        self.left = times

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise KafkaException(KafkaError(self.code))
        return "led"


@pytest.mark.parametrize("code", ELECTING)
def test_partitions_whose_leader_is_elected_are_waited_for(code: int) -> None:
    assert once_led(Electing(code, 2), timeout_s=10) == "led"


def test_partitions_that_find_no_leader_are_waited_for_no_longer_than_allowed() -> None:
    with pytest.raises(KafkaException, match="LEADER_NOT_AVAILABLE"):
        once_led(Electing(KafkaError.LEADER_NOT_AVAILABLE, 100), timeout_s=0.2)


def test_what_no_election_explains_is_raised_at_once() -> None:
    asked = Electing(KafkaError.TOPIC_AUTHORIZATION_FAILED, 1)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        once_led(asked, timeout_s=10)
    assert asked.left == 0
