"""Personal data in the audit: sealed before it is recorded, opened for readers, gone when its subject is erased."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from showcase.audit.application.ports import Message
from showcase.audit.application.protecting import CachedKeys, Protecting, Reveal, SubjectKeys
from showcase.audit.application.recorder import Recorder
from showcase.audit.domain.personal import UNKNOWN, Personal, Place, erased, sealed
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import leaf
from showcase.audit.infrastructure.content import content_of, record_of
from showcase.audit.infrastructure.subjects import SubjectLock, alike
from showcase.kernel.changes import BrokenChange, Change
from showcase.kernel.changes import read as read_change
from showcase.kernel.errors import Unavailable
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, MemorySeals
from tests.unit.test_audit import envelope, message

pytestmark = pytest.mark.anyio

PERSONAL = (
    Personal(table="orders", subject=("households/{household_id}",), columns=("reference", "note")),
    Personal(table="auth.events", subject=("{actor}", "accounts/{account_id}"), columns=("address",)),
)
PLACE = Place("orders", "reference", "households/7")
ROW = {"order_id": "a", "household_id": 7, "reference": "for Ada", "note": None}


class MemorySubjectKeys:
    """Keys of subjects (`SubjectKeys`), by their names."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes | None] = {}
        self.asked: list[set[str]] = []

    async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        self.asked.append(set(subjects))
        for subject in subjects:
            self.keys.setdefault(subject, bytes([len(self.keys)]) * 32)
        return await self.found(subjects)

    async def found(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return {subject: self.keys[subject] for subject in subjects if subject in self.keys}

    def erase(self, subject: str) -> None:
        self.keys[subject] = None


def change(table: str = "orders", schema: str = "public", op: str = "u", lsn: int = 100, **rows: Any) -> Change:
    told = message(envelope(op, table=table, schema=schema, lsn=lsn, **rows))
    read = read_change(told.key, told.value)
    assert read is not None
    return read


async def protected(keys: SubjectKeys, *changes: Change) -> Sequence[Change]:
    some = await Protecting(PERSONAL, keys, SubjectLock)(changes)
    assert not any(isinstance(one, BrokenChange) for one in some)
    return [one for one in some if isinstance(one, Change)]


async def revealed(keys: SubjectKeys, *changes: Change) -> list[Record]:
    return list(await Reveal(keys, SubjectLock)([Record.of(one) for one in changes]))


# -- what is sealed, and with whose key


async def test_marked_values_are_sealed_before_and_after_and_the_rest_stays_as_it_is() -> None:
    keys = MemorySubjectKeys()
    (one,) = await protected(keys, change(before=ROW, after={**ROW, "reference": "for Bob", "note": "ring twice"}))

    assert one.before is not None
    assert one.after is not None
    assert [one.before[name] for name in ("order_id", "household_id", "note")] == ["a", 7, None]
    assert "Ada" not in json.dumps(one.before)
    assert not {"Bob", "twice"} & set(json.dumps(one.after).split())
    assert one.before["reference"]["subject"] == "households/7"  # type: ignore[index]  # a row holds anything
    assert one.changed() == ["note", "reference"]


async def test_value_that_has_not_changed_is_seen_not_to_have_changed() -> None:
    (one,) = await protected(MemorySubjectKeys(), change(before=ROW, after={**ROW, "status": "paid"}))

    assert one.changed() == ["status"]


async def test_same_change_is_the_same_bytes_in_any_process() -> None:
    keys = MemorySubjectKeys()
    told = change(before=ROW, after=ROW)
    (first,), (second,) = await protected(keys, told), await protected(CachedKeys(keys, lasting_s=60), told)

    assert content_of(Record.of(first)) == content_of(Record.of(second))


async def test_row_that_goes_over_to_another_subject_is_sealed_with_the_key_of_each() -> None:
    keys = MemorySubjectKeys()
    (one,) = await protected(keys, change(before=ROW, after={**ROW, "household_id": 8}))
    keys.erase("households/7")
    (record,) = await revealed(keys, one)

    assert record.before is not None
    assert record.after is not None
    assert record.before["reference"] == {"erased": True}
    assert record.after["reference"] == "for Ada"


@pytest.mark.parametrize(
    ("row", "subject"),
    [
        ({"actor": "households/7", "account_id": "x"}, "households/7"),
        ({"actor": "", "account_id": "x"}, "accounts/x"),
        ({"actor": None, "account_id": "x"}, "accounts/x"),
        ({"account_id": "x"}, "accounts/x"),
        ({"actor": "", "account_id": None}, UNKNOWN),
        ({"actor": {"a": 1}}, UNKNOWN),
    ],
)
async def test_the_first_way_that_says_whose_a_row_is_is_taken_and_nothing_stays_unsealed(
    row: dict[str, object], subject: str
) -> None:
    keys = MemorySubjectKeys()
    (one,) = await protected(keys, change("events", "auth", after={**row, "address": "10.1.2.3"}))

    assert list(keys.keys) == [subject]
    assert "10.1.2.3" not in json.dumps(one.after)


async def test_change_without_anything_personal_asks_for_no_key() -> None:
    keys = MemorySubjectKeys()
    some = [change("order_lines", after={"line": 1}), change(after={**ROW, "reference": None}), change(op="t")]

    assert list(await protected(keys, *some)) == some
    assert keys.asked == []


async def test_keys_of_all_subjects_of_a_batch_are_asked_for_together() -> None:
    keys = MemorySubjectKeys()
    await protected(keys, *(change(after={**ROW, "household_id": number % 10}) for number in range(100)))

    assert keys.asked == [{f"households/{number}" for number in range(10)}]


@pytest.mark.parametrize("actor", ["x" * 201, "a\0b", "\ud800"])
async def test_change_of_a_subject_that_can_have_no_key_is_refused_and_holds_up_no_other(actor: str) -> None:
    bad = change("events", "auth", after={"actor": actor, "address": "10.1.2.3"})
    refused, good = await Protecting(PERSONAL, MemorySubjectKeys(), SubjectLock)([bad, change(after=ROW)])

    assert isinstance(refused, BrokenChange)
    assert actor not in str(refused)
    assert isinstance(good, Change)


async def test_refused_change_is_put_away_with_the_reason() -> None:
    audit = Audit()
    bad = message(envelope(table="events", schema="auth", after={"actor": "x" * 201, "address": "a"}), offset=0)

    assert await audit.recorder.record([bad, message(envelope(after=ROW), offset=1)]) == 1
    (letter,) = audit.dead.letters.values()
    assert "auth.events is too long" in letter.reason


# -- the lock

VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_sealed_value_opens_to_what_it_was(value: Any) -> None:
    async def there_and_back() -> None:
        keys = MemorySubjectKeys()
        (one,) = await protected(keys, change(after={**ROW, "note": value}))
        (record,) = await revealed(keys, one)
        assert record.after == {**ROW, "note": value}

    asyncio.run(there_and_back())


@given(some.lists(some.tuples(some.sampled_from(["a", "b"]), some.binary(max_size=40)), unique=True, max_size=20))
def test_no_nonce_comes_twice_for_other_values_or_places(values: list[tuple[str, bytes]]) -> None:
    lock = SubjectLock(b"k" * 32)
    texts = [lock.seal(Place("t", column, "s"), plain) for column, plain in values]

    assert len({text[:16] for text in texts}) == len(values)  # 16 characters of Base64 are 12 bytes


OTHERS = [PLACE._replace(table="o"), PLACE._replace(column="c"), PLACE._replace(subject="s"), Place("", "", "")]


@pytest.mark.parametrize("other", OTHERS)
def test_value_opens_nowhere_but_in_its_place(other: Place) -> None:
    lock = SubjectLock(b"k" * 32)
    text = lock.seal(PLACE, b'"Ada"')

    assert lock.open(PLACE, text) == b'"Ada"'
    assert lock.open(other, text) is None
    assert SubjectLock(b"x" * 32).open(PLACE, text) is None


@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "é", "A" * 80])
async def test_what_its_key_does_not_open_is_shown_as_unreadable(text: str) -> None:
    keys = MemorySubjectKeys()
    await keys.made(["households/7"])
    (record,) = await revealed(keys, change(after={**ROW, "reference": sealed(text, "households/7")}))

    assert record.after is not None
    assert record.after["reference"] == {"unreadable": True}


async def test_value_whose_key_is_lost_is_unreadable_and_one_that_came_after_its_erasure_is_erased() -> None:
    row = {**ROW, "reference": sealed("AAAA", "households/9"), "note": erased("households/7")}
    (record,) = await revealed(MemorySubjectKeys(), change(after=row))

    assert record.after is not None
    assert (record.after["reference"], record.after["note"]) == ({"unreadable": True}, {"erased": True})


# -- erasure


async def test_erased_subject_is_shown_no_longer_at_once_and_the_record_stays_as_it_is() -> None:
    keys = MemorySubjectKeys()
    (one,) = await protected(keys, change(after=ROW))
    keys.erase("households/7")
    (record,) = await revealed(keys, one)
    (later,) = await protected(keys, change(after={**ROW, "household_id": 7}))

    assert record.after == {**ROW, "reference": {"erased": True}}
    assert later.after == {**ROW, "reference": {"erased": True, "subject": "households/7"}}


async def test_remembered_key_is_used_for_no_longer_than_it_lasts() -> None:
    now = 0.0
    stored = MemorySubjectKeys()
    keys = CachedKeys(stored, lasting_s=60, clock=lambda: now)
    await keys.made(["households/7"])
    stored.erase("households/7")

    now = 59.9
    assert (await keys.made(["households/7"]))["households/7"] is not None
    now = 60.0
    assert (await keys.made(["households/7"]))["households/7"] is None
    assert len(stored.asked) == 2


async def test_key_lasts_from_before_it_was_asked_for() -> None:
    now = 0.0

    class Slow(MemorySubjectKeys):
        async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
            nonlocal now
            found = await super().made(subjects)
            now += 30  # erased meanwhile
            return found

    stored = Slow()
    keys = CachedKeys(stored, lasting_s=60, clock=lambda: now)
    await keys.made(["households/7"])
    now = 60.0
    await keys.made(["households/7"])

    assert len(stored.asked) == 2


async def test_no_more_keys_are_remembered_than_there_may_be() -> None:
    stored = MemorySubjectKeys()
    keys = CachedKeys(stored, lasting_s=60, limit=2)
    for subject in ("a", "b", "c"):
        await keys.made([subject])

    assert len(await keys.made(["a", "b", "c"])) == 3
    assert stored.asked[3:] == [{"a"}]


# -- a change that is told again


class Audit:
    """A recorder, its stores, and the keys that its process knows."""

    def __init__(self, other: "Audit | None" = None, keys: SubjectKeys | None = None) -> None:
        self.store: MemoryAuditStore = other.store if other else MemoryAuditStore()
        self.seals: MemorySeals = other.seals if other else MemorySeals()
        self.dead: MemoryDeadLetters = other.dead if other else MemoryDeadLetters()
        self.keys = keys or MemorySubjectKeys()
        protect = Protecting(PERSONAL, self.keys, SubjectLock)
        self.recorder = Recorder(self.store, self.seals, self.dead, content_of, protect, alike=alike)


def orders(*numbers: int) -> list[Message]:
    """Changes of one row, by households in turn."""
    return [
        message(
            envelope(lsn=number, before=ROW, after={**ROW, "household_id": 7 + number % 2, "note": "n"}), offset=number
        )
        for number in numbers
    ]


def is_sealed_as_stored(audit: Audit) -> bool:
    (seal,) = audit.seals.seals.values()
    return list(seal.leaves) == [leaf(audit.store.entries[id_].content) for id_ in seal.ids]


@pytest.mark.parametrize("erased_first", [False, True])
async def test_change_told_again_from_the_other_side_of_an_erasure_is_sealed_as_it_is_stored(
    erased_first: bool,
) -> None:
    live = MemorySubjectKeys()
    await live.made(["households/7", "households/8"])
    gone = MemorySubjectKeys()
    gone.keys = {**live.keys, "households/7": None}
    first = Audit(keys=gone if erased_first else live)
    second = Audit(first, keys=live if erased_first else gone)

    assert await first.recorder.record(orders(0, 1, 2)) == 3
    assert await second.recorder.record(orders(0, 1, 2)) == 0
    await second.recorder.seal([("t", 0)])

    assert is_sealed_as_stored(second)


ERASING = some.dictionaries(some.integers(0, 3), some.sampled_from(["households/7", "households/8"]))


@given(some.lists(some.integers(0, 3), min_size=8, max_size=8), some.tuples(ERASING, ERASING))
def test_two_that_record_at_once_while_subjects_are_erased_seal_what_is_stored(
    turns: list[int], erasing: tuple[dict[int, str], dict[int, str]]
) -> None:
    """Each learns of the erasure of each household at a time of its own, and the store takes turns between them."""

    class Hesitant(MemoryAuditStore):
        async def add(self, entries: Any) -> Any:
            for _ in range(waits.pop()):
                await asyncio.sleep(0)
            return await super().add(entries)

    waits = list(turns)

    async def race() -> None:
        first = Audit()
        first.store = Hesitant()
        keys = MemorySubjectKeys()
        await keys.made(["households/7", "households/8"])
        sides = []
        for _ in range(2):
            own = MemorySubjectKeys()
            own.keys = dict(keys.keys)
            sides.append(Audit(first, keys=own))

        async def record(side: Audit, when: Mapping[int, str]) -> None:
            assert isinstance(side.keys, MemorySubjectKeys)
            for number in range(4):
                if number in when:
                    side.keys.erase(when[number])
                await side.recorder.record(orders(number))

        await asyncio.gather(*(record(side, when) for side, when in zip(sides, erasing, strict=True)))
        assert len(first.store.entries) == 4
        for side in sides:
            await side.recorder.seal([("t", 0)])
            assert is_sealed_as_stored(side)
            first.seals.seals.clear()  # or the other one's would come too late

    asyncio.run(race())


LIVE = {"reference": sealed("AAAA", "s"), "status": "paid"}


def stored_with(after: dict[str, object], more: Mapping[str, object] | None = None) -> bytes:
    told = content_of(Record.of(change(after=LIVE)))
    return bson.encode({**bson.decode(told), "after": after, **(more or {})})


@pytest.mark.parametrize(
    ("stored", "same"),
    [
        (stored_with({**LIVE, "reference": erased("s")}), True),
        (stored_with({**LIVE, "reference": erased("another")}), False),
        (stored_with({**LIVE, "reference": sealed("BBBB", "s")}), False),
        (stored_with({**LIVE, "reference": None}), False),
        (stored_with({**LIVE, "reference": "Ada"}), False),
        (stored_with({"reference": erased("s"), "status": "placed"}), False),
        (stored_with({"reference": erased("s"), "status": erased("s")}), False),
        (stored_with({"status": "paid", "reference": erased("s")}), False),
        (stored_with({"reference": erased("s")}), False),
        (stored_with({**LIVE, "reference": erased("s"), "more": 1}), False),
        (stored_with({**LIVE, "reference": erased("s")}, {"position": "0"}), False),
        (stored_with({**LIVE, "reference": erased("s")}, {"more": 0}), False),
        (bson.encode({}), False),
        (b"no document", False),
    ],
)
def test_contents_are_alike_only_when_they_differ_by_an_erasure_and_nothing_else(stored: bytes, same: bool) -> None:
    told = content_of(Record.of(change(after=LIVE)))

    assert alike(stored, told) is same


def test_content_with_a_name_that_comes_twice_is_like_no_other() -> None:
    told = content_of(Record.of(change(after=LIVE)))
    stored = stored_with({**LIVE, "reference": erased("s")})
    assert alike(stored, told)
    extra = bson.encode({"source": "another"})[4:-1]
    twice = (len(stored) + len(extra)).to_bytes(4, "little") + extra + stored[4:]

    assert record_of("x", twice).source == record_of("x", stored).source
    assert not alike(twice, told)


async def test_edited_record_is_still_found_when_its_change_is_told_again_after_an_erasure() -> None:
    audit = Audit()
    assert isinstance(audit.keys, MemorySubjectKeys)
    await audit.recorder.record(orders(0))
    ((id_, entry),) = audit.store.entries.items()
    fields = bson.decode(entry.content)
    fields["after"]["order_id"] = "another"
    edited = bson.encode(fields)
    audit.store.entries[id_] = type(entry)(entry.message, id_, edited, leaf(edited))
    audit.keys.erase("households/7")
    again = Audit(audit, keys=audit.keys)
    await again.recorder.record(orders(0))
    await again.recorder.seal([("t", 0)])

    assert not is_sealed_as_stored(again)


async def test_nothing_is_recorded_while_the_keys_cannot_be_had() -> None:
    class Away(MemorySubjectKeys):
        async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
            raise Unavailable("away")

    audit = Audit(keys=Away())
    with pytest.raises(Unavailable):
        await audit.recorder.record(orders(0, 1))

    assert audit.store.entries == {}
    assert audit.dead.letters == {}
    back = Audit(audit)
    assert await back.recorder.record(orders(0, 1)) == 2
