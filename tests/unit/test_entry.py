"""The bytes of an entry, as anything may have changed them; and when one entry is stored over another."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from showcase.caching.application import entry as entries
from showcase.caching.application.entry import ABSENT, COMPRESSED, FLOOR, GONE, Codec, Entry, beats, merged
from showcase.caching.domain import NEWEST_VERSION, Kind, Uncacheable

ANYTHING: Kind[Any] = Kind("anything", Any)
NUMBERS = Kind("numbers", list[int])
NAME = "numbers.1:7"
CODEC = Codec()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)
tags = st.lists(names, max_size=5)
times = st.floats(0, 4e9)


def of(value: Any, kind: Kind[Any] = ANYTHING, **changes: Any) -> Entry[Any]:
    """An entry with a value."""
    made: Entry[Any] = Entry(value, 3, 0, 2e9, 3e9, 1e9, 0.5, ("a", "b"), CODEC.payload(kind, value))
    return replace(made, **changes)


def spoilt(data: bytes) -> Iterator[bytes]:
    """Each way to cut it off, and to change one byte of it."""
    for place in range(len(data)):
        yield data[:place]
        for byte in {data[place] ^ flipped for flipped in (1, 2, 4, 8, 16, 128, 255)}:
            yield data[:place] + bytes([byte]) + data[place + 1 :]
    yield data + b"\0"


# -- the bytes


@given(values, names, st.integers(0, NEWEST_VERSION), tags, times, times, times, st.floats(0, 1e4, width=32))
@example(["x" * 10_000, None], "a", 0, [], 0.0, 0.0, 0.0, 0.0)
@settings(max_examples=200)
def test_what_was_written_is_read_again(
    value: Any, name: str, version: int, tags: list[str], fresh: float, stale: float, loaded: float, load_s: float
) -> None:
    written = Entry(value, version, 0, fresh, stale, loaded, load_s, tuple(tags), CODEC.payload(ANYTHING, value))
    data = CODEC.write(name, written)

    assert CODEC.read(ANYTHING, name, data) == written
    assert entries.head(data)[1] == version
    assert CODEC.read(ANYTHING, name, entries.expired(data)) == replace(written, fresh_until=0.0)


@pytest.mark.parametrize("bits", [ABSENT, FLOOR, FLOOR | GONE])
def test_what_is_no_answer_is_read_as_none(bits: int) -> None:
    written = of(None, bits=bits, payload=b"")
    assert CODEC.read(NUMBERS, NAME, CODEC.write(NAME, written)) == written
    assert entries.head(CODEC.write(NAME, written)) == (bits, 3)


@pytest.mark.parametrize("value", [[1, 2, 3], [7] * 3_000], ids=["plain", "compressed"])
def test_bytes_that_were_changed_are_a_miss_or_the_value_and_never_another(value: list[int]) -> None:
    written = CODEC.write(NAME, of(value, NUMBERS))
    assert bool(written[1] & COMPRESSED) == (len(value) > 3)
    for data in spoilt(written):
        read = CODEC.read(NUMBERS, NAME, data)
        assert read is None or read.is_floor or replace(read, fresh_until=2e9) == of(value, NUMBERS)
        entries.head(data)


@given(st.binary(max_size=200), st.integers(0, 255))
def test_bytes_of_others_are_a_miss(data: bytes, bits: int) -> None:
    for whole in (data, bytes([entries.FORMAT, bits]) + data):
        read = CODEC.read(NUMBERS, NAME, whole)
        assert read is None or read.is_floor


def test_a_spoilt_floor_is_no_answer() -> None:
    for data in spoilt(CODEC.write(NAME, entries.floor(5, is_gone=True))):
        read = CODEC.read(NUMBERS, NAME, data)
        assert read is None or read.is_floor


def test_the_entry_of_another_key_and_of_another_kind_is_a_miss() -> None:
    data = CODEC.write(NAME, of([1, 2], NUMBERS))
    assert CODEC.read(NUMBERS, "numbers.1:8", data) is None
    assert CODEC.read(Kind("numbers", list[str]), NAME, data) is None
    assert CODEC.read(Kind("numbers", int), NAME, data) is None


@pytest.mark.parametrize(
    "payload",
    [
        zlib.compress(bytes(200_000_000), 9)[:-8],
        zlib.compress(bytes(70_000_000), 9),
        zlib.compress(b"\x91\x01") + b"more",
        b"\x91" * 100_000,
        b"no zlib",
    ],
    ids=["cut off", "a bomb", "something after", "deep", "not compressed"],
)
def test_a_payload_that_cannot_be_unpacked_is_a_miss(payload: bytes) -> None:
    bits = 0 if payload.startswith(b"\x91") else COMPRESSED
    spoilt = of([1], NUMBERS, bits=bits, payload=b"")
    head = CODEC.write(NAME, spoilt)[:18]
    body = CODEC.write(NAME, spoilt)[22:] + payload
    data = head + entries._CRC.pack(entries._checksum(NAME, head, body)) + body
    assert CODEC.read(ANYTHING, NAME, data) is None


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, {1, object()}, "\ud800", lambda: None],
    ids=["too large", "too small", "an object", "half a surrogate", "a function"],
)
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(Uncacheable, match="anything"):
        CODEC.payload(ANYTHING, value)


def test_what_is_not_of_its_kind_is_refused_when_it_is_written() -> None:
    with pytest.raises(Uncacheable, match="numbers"):
        CODEC.payload(cast("Kind[Any]", NUMBERS), ["1"])
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Uncacheable):
        CODEC.payload(ANYTHING, deep)


@pytest.mark.parametrize("version", [-1, NEWEST_VERSION + 1])
def test_a_version_that_redis_cannot_compare_is_refused(version: int) -> None:
    with pytest.raises(Uncacheable, match="version"):
        CODEC.write(NAME, of([1], version=version))


@pytest.mark.parametrize("tags", [("",), ("a\nb",), ("x" * 70_000,), ("\ud800",)], ids=["empty", "two", "long", "half"])
def test_tags_that_cannot_be_told_apart_are_refused(tags: tuple[str, ...]) -> None:
    with pytest.raises(Uncacheable, match="tags"):
        CODEC.write(NAME, of([1], tags=tags))


def test_a_large_value_is_compressed_and_a_small_one_or_one_that_gains_nothing_is_not() -> None:
    assert len(CODEC.write(NAME, of([1] * 3_000))) < 500
    assert CODEC.write(NAME, of([1] * 3_000))[1] == COMPRESSED
    assert CODEC.write(NAME, of([1] * 200))[1] == 0
    assert CODEC.write(NAME, of([1], payload=Random(7).randbytes(3_000)))[1] == 0  # noqa: S311 - no secret


# -- what is stored over what

OPERATIONS = ((0, "value"), (COMPRESSED, "value"), (ABSENT, "nothing"), (FLOOR, "floor"), (FLOOR | GONE, "nothing"))
RANKS = ("floor", "value", "nothing")
versions = st.integers(1, 4)
writes = st.tuples(st.sampled_from((0, COMPRESSED, ABSENT)), versions)
removals = st.tuples(st.sampled_from((FLOOR, FLOOR | GONE)), versions)
operations = writes | removals


def after(state: tuple[int, int], operation: tuple[int, int]) -> tuple[int, int]:
    """What is there after a write or a removal."""
    if operation[0] & FLOOR:
        return merged(operation, state) or state
    return operation if beats(operation, state) else state


def meaning(state: tuple[int, int]) -> tuple[int, int]:
    """The version, and what is said of it: the larger, the more."""
    return state[1], RANKS.index(dict(OPERATIONS)[state[0]])


@given(st.lists(operations, min_size=1, max_size=8))
def test_versioned_writes_and_removals_lead_to_the_same_in_any_order_and_repeated(done: list[tuple[int, int]]) -> None:
    state = (0, 0)
    for operation in done:
        state = after(state, operation)
    assert meaning(state) == max(map(meaning, done))


@given(st.lists(operations | st.tuples(st.sampled_from([FLOOR, FLOOR | GONE]), st.just(0)), min_size=2, max_size=8))
def test_no_version_ever_goes_back_and_a_removal_always_removes(done: list[tuple[int, int]]) -> None:
    states = [(0, 0)]
    for operation in done:
        states.append(after(states[-1], operation))
        if operation[1] == 0:
            assert states[-1][0] & FLOOR
    assert all(before[1] <= later[1] for before, later in pairwise(states))


@given(removals, writes)
def test_after_a_removal_nothing_older_is_stored(removal: tuple[int, int], write: tuple[int, int]) -> None:
    expected = write[1] > removal[1] or (write[1] == removal[1] and (not removal[0] & GONE or write[0] == ABSENT))
    assert beats(write, removal) == expected


@pytest.mark.parametrize("bits", [0, COMPRESSED, ABSENT])
def test_without_versions_the_last_one_to_write_wins(bits: int) -> None:
    assert all(beats((bits, 0), (old, 0)) for old, _ in OPERATIONS)
