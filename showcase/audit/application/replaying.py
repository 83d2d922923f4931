"""Dead letters: what became of each, and sending them through the recorder once more when their cause is mended.

A message that became no record keeps the place at which it first stood as its name, however often it is replayed. What
became of a replay nobody writes down: it is told by how far the recorder has got, and by the letters that there are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from showcase.audit.application.ports import Message, Partition
from showcase.kernel.errors import NotFound


class NoSuchLetter(NotFound):
    """No message of this place was put away, or it was removed since."""


class State(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    """Nobody has replayed it."""
    WAITING = "waiting"
    """It is replayed; the recorder has not got to it yet."""
    FAILED = "failed again"
    """It is replayed, and was put away once more."""
    RECORDED = "recorded"
    """It is replayed, and the recorder has passed it without putting it away."""


@dataclass(frozen=True, slots=True)
class Found:
    """A letter as it lies there; the same message may lie there several times.

    Attributes:
        at: partition and offset at which the letter itself lies.
        place: where its message stood when it was put away.
        origin: where its message stood at first: another place if it was replayed.
        size_bytes: of the message's value.
    """

    at: tuple[int, int]
    place: str
    origin: str
    reason: str
    size_bytes: int
    put_away_at: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """A letter's message that was sent once more, and where it stands now."""

    origin: str
    partition: Partition
    offset: int

    @property
    def place(self) -> str:
        return f"{self.partition[0]}:{self.partition[1]}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Dead:
    """A message that became no record.

    Attributes:
        newest: its newest letter.
        replays: how often it was replayed.
    """

    newest: Found
    state: State
    replays: int

    @property
    def place(self) -> str:
        return self.newest.origin


class LetterBox(Protocol):
    """The letters that are kept, and what was replayed of them. Raises Unavailable."""

    async def handled(self) -> Mapping[Partition, int]:
        """Offsets before which the recorder has recorded or put away all that was replayed."""

    async def replays(self) -> Sequence[Replay]:
        """All that was replayed, the oldest of a partition first."""

    async def letters(self) -> Sequence[Found]:
        """All letters that were there when it was called, the oldest of a partition first."""

    async def message(self, letter: Found) -> Message:
        """The message in a letter, all of it. Raises NoSuchLetter."""

    async def replay(self, letters: Collection[Found]) -> int:
        """Send the messages in some letters through the recorder; how many were there to be sent.

        What it has sent when it raises stays sent.
        """


async def overview(box: LetterBox) -> Sequence[Dead]:
    """Every message that became no record, once, the newest first. Raises Unavailable."""
    handled = await box.handled()  # first: what the recorder puts away after that counts as waiting, not as recorded
    replays: dict[str, list[Replay]] = {}
    for replay in await box.replays():
        replays.setdefault(replay.origin, []).append(replay)
    letters = await box.letters()
    newest = {letter.origin: letter for letter in sorted(letters, key=lambda letter: letter.put_away_at)}
    again = {letter.place for letter in letters}

    def dead(letter: Found) -> Dead:
        sent = replays.get(letter.origin, [])
        return Dead(letter, _state(sent, handled, again), len(sent))

    return [dead(letter) for letter in reversed(_by_time(newest.values()))]


def _by_time(letters: Collection[Found]) -> list[Found]:
    return sorted(letters, key=lambda letter: (letter.put_away_at, letter.at))


def _state(sent: Sequence[Replay], handled: Mapping[Partition, int], again: Collection[str]) -> State:
    """One replay that was recorded is enough: the record stays, whatever becomes of others."""
    left = [replay for replay in sent if replay.place not in again]
    if any(replay.offset < handled.get(replay.partition, 0) for replay in left):
        return State.RECORDED
    if left:
        return State.WAITING
    return State.FAILED if sent else State.OPEN


async def find(box: LetterBox, places: Sequence[str]) -> Sequence[Dead]:
    """Those of some places, each once; any place at which such a message was put away will do.

    Raises NoSuchLetter, Unavailable.
    """
    found = {one.place: one for one in await overview(box)}
    names = {letter.place: letter.origin for letter in await box.letters()} | {place: place for place in found}
    if unknown := [place for place in places if names.get(place) not in found]:
        raise NoSuchLetter(f"there is no letter of {', '.join(unknown)}: see `audit letters list`")
    return [found[name] for name in dict.fromkeys(names[place] for place in places)]


async def replay(box: LetterBox, places: Sequence[str]) -> int:
    """Replay some, whatever became of them: a record is made once only. How many.

    Raises NoSuchLetter, and then nothing was replayed; Unavailable.
    """
    return await box.replay([one.newest for one in await find(box, places)])


async def replay_all(box: LetterBox) -> int:
    """Replay all that are no record and do not wait to become one; how many. Raises Unavailable."""
    due = (State.OPEN, State.FAILED)
    return await box.replay([one.newest for one in await overview(box) if one.state in due])
