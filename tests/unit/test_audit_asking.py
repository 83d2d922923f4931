"""Asking the audit, over records in memory: who it was, how it was, what became of it, and who is let in."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase.audit.api import routes
from showcase.audit.application import asking
from showcase.audit.application.asking import Place, Question, attributed, deeds, everything, with_actors
from showcase.audit.application.ports import Entry, Message
from showcase.audit.domain.history import UNKNOWN, differences, reconstruct, row_at, who
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import leaf
from showcase.audit.infrastructure.content import content_of
from showcase.kernel.acting import current
from showcase.kernel.changes import Change, Operation
from showcase.kernel.errors import Unauthenticated, Unavailable
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from tests.fakes import MemoryAuditStore, serving, settings_of

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)
PSQL = {"database_user": "ada", "application": "psql", "client_address": None}
ADA = {"actor": "staff/ada", "request_id": "request-1", "reason": "asked to", **PSQL}
Row = dict[str, object]


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def change(
    lsn: int,
    operation: Operation = Operation.UPDATE,
    *,
    key: Mapping[str, object] | None = None,
    table: str = "orders",
    before: Row | None = None,
    after: Row | None = None,
    second: float | None = None,
    transaction: int | None = None,
) -> Record:
    """A record at a place in the log; committed as many seconds after the start, if nothing else is said."""
    if operation not in (Operation.DELETE, Operation.TRUNCATE):
        after = {} if after is None else after
    told = Change(
        source="shop",
        table=table,
        operation=operation,
        key={} if operation is Operation.TRUNCATE else key or {"order_id": "a"},
        before=before,
        after=after,
        committed_at=at(lsn if second is None else second),
        position=f"{lsn:016x}",
        transaction=str(lsn if transaction is None else transaction),
    )
    return Record.of(told)


def context(lsn: int, said: Mapping[str, object], *, second: float | None = None, transaction: int) -> Record:
    return change(
        lsn,
        Operation.CREATE,
        table="audit_context",
        key={"context_id": lsn},
        after={"transaction_id": transaction, **said},
        second=second,
        transaction=transaction,
    )


async def kept(*records: Record) -> MemoryAuditStore:
    store = MemoryAuditStore()
    for offset, record in enumerate(records):
        message = Message(topic="t", partition=0, offset=offset, key=None, value=None)
        await store.add([Entry(message, record.id, content := content_of(record), leaf(content))])
    return store


# -- who


async def test_record_belongs_to_the_last_context_of_its_transaction_that_lies_before_it() -> None:
    first, second, other = (context(n, {"actor": f"staff/{n}"}, second=9, transaction=7) for n in (1, 4, 8))
    records = [change(n, second=9, transaction=7) for n in (2, 3, 5, 7)]

    found = attributed(records, [other, second, first])

    assert [one.who.actor for one in found] == ["staff/1", "staff/1", "staff/4", "staff/4"]


@pytest.mark.parametrize(
    "other",
    [
        {"transaction": "8"},
        {"source": "another"},
        {"epoch": 1},
        {"committed_at": at(8)},  # the number of the transaction has come again
        {"position": f"{3:016x}"},
        {"operation": Operation.READ},
        {"operation": Operation.DELETE},
        {"entity_type": "orders"},
    ],
)
async def test_what_is_no_context_of_a_record_does_not_say_who_made_it(other: dict[str, Any]) -> None:
    said = context(1, ADA, second=9, transaction=7)
    record = change(2, second=9, transaction=7)
    assert attributed([record], [said])[0].who.actor == "staff/ada"

    assert attributed([record], [replace(said, **other)])[0].who.actor == UNKNOWN


async def test_context_that_comes_late_is_seen_as_soon_as_it_is_there() -> None:
    record = change(2, second=9, transaction=7)
    store = await kept(record)
    assert [one.who.actor for one in await with_actors(store, [record])] == [UNKNOWN]

    store = await kept(record, context(1, ADA, second=9, transaction=7))

    assert [one.who.actor for one in await with_actors(store, [record])] == ["staff/ada"]


def test_change_by_hand_says_what_the_database_knows() -> None:
    by_hand = who(context(1, {**PSQL, "actor": None}, transaction=7))

    assert (by_hand.actor, by_hand.database_user, by_hand.application) == (UNKNOWN, "ada", "psql")
    assert by_hand.summary == "by hand, as ada from psql"
    assert who(None).summary == UNKNOWN
    assert who(context(1, ADA, transaction=7)).summary == "staff/ada"


def test_address_that_was_erased_is_told_as_such() -> None:
    assert who(context(1, {**ADA, "client_address": {"erased": True}}, transaction=7)).client_address == "erased"


async def test_snapshot_was_made_by_nobody() -> None:
    snapshot = change(2, Operation.READ, after={}, second=9, transaction=7)

    assert attributed([snapshot], [context(1, ADA, second=9, transaction=7)])[0].who.actor == UNKNOWN


class Counted(MemoryAuditStore):
    """Counts the questions that it is asked."""

    def __init__(self, store: MemoryAuditStore) -> None:
        self.entries = store.entries
        self.asked: list[Question] = []

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        self.asked.append(question)
        return await super().find(question, after, limit)


async def test_a_page_asks_once_who_it_was() -> None:
    records = [change(2 * n + 1, second=n, transaction=n) for n in range(50)]
    contexts = [context(2 * n, {"actor": f"staff/{n}"}, second=n, transaction=n) for n in range(50)]
    store = Counted(await kept(*records, *contexts))

    found = await with_actors(store, records)

    assert [one.who.actor for one in found] == [f"staff/{n}" for n in range(50)]
    assert len(store.asked) == 1


async def test_however_many_contexts_a_transaction_has_each_record_gets_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "CONTEXTS_AT_ONCE", 3)
    contexts = [context(2 * n, {"actor": f"staff/{n}"}, second=9, transaction=7) for n in range(10)]
    records = [change(2 * n + 1, second=9, transaction=7) for n in range(10)]

    found = await with_actors(await kept(*contexts), records)

    assert [one.who.actor for one in found] == [f"staff/{n}" for n in range(10)]


# -- what somebody did


async def test_deed_has_the_records_of_its_own_context_only_also_when_the_same_one_acts_again() -> None:
    store = await kept(
        *(context(n, {"actor": actor}, second=9, transaction=7) for n, actor in ((1, "a"), (3, "b"), (5, "a"))),
        *(change(n, second=9, transaction=7) for n in (2, 4, 6, 7)),
    )

    found, following = await deeds(store, Question(actor="a"), None, 10)

    assert [[int(one.position, 16) for one in deed.records] for deed in found] == [[2], [6, 7]]
    assert [deed.is_whole for deed in found] == [True, True]
    assert following is None


@pytest.mark.parametrize(("ours", "others", "is_whole"), [(3, 0, True), (4, 0, False), (2, 9, True), (3, 9, True)])
async def test_deed_is_whole_unless_more_of_it_is_there(
    monkeypatch: pytest.MonkeyPatch, ours: int, others: int, is_whole: bool
) -> None:
    monkeypatch.setattr(asking, "MAX_DEED", 3)
    places = count(1)
    store = await kept(
        context(next(places), {"actor": "a"}, second=9, transaction=7),
        *(change(next(places), second=9, transaction=7) for _ in range(ours)),
        context(next(places), {"actor": "b"}, second=9, transaction=7),
        *(change(next(places), second=9, transaction=7) for _ in range(others)),
    )

    ((deed,), _) = await deeds(store, Question(actor="a"), None, 10)

    assert (len(deed.records), deed.is_whole) == (min(ours, 3), is_whole)


async def test_context_that_was_removed_or_found_by_a_snapshot_is_no_deed() -> None:
    said = context(1, {**PSQL, "actor": None}, transaction=7)
    removed = replace(said, id="x", operation=Operation.DELETE, before=said.after, after=None)
    found_later = replace(said, id="y", operation=Operation.READ)

    found, _ = await deeds(await kept(said, removed, found_later), Question(actor=UNKNOWN), None, 10)

    assert [deed.context.id for deed in found] == [said.id]


# -- how it was


def test_row_that_was_deleted_before_its_table_was_emptied_is_gone_by_the_deletion() -> None:
    created = change(1, Operation.CREATE, after={"n": 1})
    deleted = change(2, Operation.DELETE, before={"n": 1})
    emptied = change(3, Operation.TRUNCATE)

    states = [row_at([emptied, deleted, created], at(second)) for second in (0, 1, 2, 3)]

    assert states[0] is None
    assert [(state.row, state.since) for state in states[1:] if state] == [
        ({"n": 1}, created),
        (None, deleted),
        (None, deleted),
    ]


def test_row_is_gone_with_its_table_and_there_again_when_it_is_made_anew() -> None:
    records = [change(1, Operation.CREATE), change(2, Operation.TRUNCATE), change(3, Operation.CREATE, after={"n": 3})]

    states = [row_at(records, at(second)) for second in (2, 3)]

    assert [state and state.row for state in states] == [None, {"n": 3}]
    assert states[0] is not None
    assert states[0].since == records[1]


def test_differences_tell_a_column_that_came_from_one_that_is_null() -> None:
    found = differences({"a": 1, "b": None, "c": 3}, {"a": 2, "b": None, "d": None})

    assert {name: (one.before, one.after) for name, one in found.items()} == {
        "a": (1, 2),
        "c": (3, None),
        "d": (None, None),
    }


def test_keys_that_are_exchanged_in_one_statement_leave_both_rows() -> None:
    one, two = {"id": 1, "n": "one"}, {"id": 2, "n": "two"}
    told = [
        change(1, Operation.CREATE, key={"id": 1}, after=one),
        change(2, Operation.CREATE, key={"id": 2}, after=two),
        change(3, Operation.DELETE, key={"id": 1}, before=one),
        change(3, Operation.CREATE, key={"id": 2}, after={**one, "id": 2}),
        change(4, Operation.DELETE, key={"id": 2}, before=two),
        change(4, Operation.CREATE, key={"id": 1}, after={**two, "id": 1}),
    ]

    assert reconstruct(told) == {
        ("orders", ("1",)): {"id": 1, "n": "two"},
        ("orders", ("2",)): {"id": 2, "n": "one"},
    }


class Table:
    """A table, and what change data capture would tell of it."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, ...], Row] = {}
        self.records: list[Record] = []
        self.columns: dict[str, object] = {"n": 0}
        self._places = count(1)

    def write(self, id_: int, n: int) -> None:
        """INSERT … ON CONFLICT DO UPDATE."""
        before = self.rows.get((str(id_),))
        self._tell(Operation.UPDATE if before else Operation.CREATE, id_, before, self._row(id_, n))

    def delete(self, id_: int) -> None:
        if before := self.rows.get((str(id_),)):
            self._tell(Operation.DELETE, id_, before, None)

    def rekey(self, id_: int, new: int) -> None:
        before = self.rows.get((str(id_),))
        if before and (str(new),) not in self.rows:
            place = next(self._places)
            self._tell(Operation.DELETE, id_, before, None, place)
            self._tell(Operation.CREATE, new, None, {**before, "id": new}, place)

    def empty(self) -> None:
        self.rows.clear()
        self.records.append(change(next(self._places), Operation.TRUNCATE))

    def add_column(self, name: str) -> None:
        self.columns[name] = None

    def snapshot(self) -> None:
        """At the place of the first change after it."""
        place = next(self._places)
        self._places = count(place)
        for row in self.rows.values():
            self.records.append(change(place, Operation.READ, key={"id": row["id"]}, after=row))

    def _row(self, id_: int, n: int) -> Row:
        return {"id": id_, **self.columns, "n": n}

    def _tell(
        self, operation: Operation, id_: int, before: Row | None, after: Row | None, place: int | None = None
    ) -> None:
        place = next(self._places) if place is None else place
        self.records.append(change(place, operation, key={"id": id_}, before=before, after=after))
        if after is None:
            del self.rows[str(id_),]
        else:
            self.rows[str(id_),] = after


IDS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), IDS, st.integers(0, 3)),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("rekey"), IDS, IDS),
        st.tuples(st.just("empty")),
        st.tuples(st.just("add_column"), st.sampled_from(["x", "y"])),
        st.tuples(st.just("snapshot")),
    ),
    max_size=30,
)


@given(STEPS, st.data())
def test_whatever_happened_to_a_table_its_records_tell_how_it_is_in_any_order_and_more_than_once(
    steps: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    table = Table()
    for name, *arguments in steps:
        getattr(table, name)(*arguments)
    twice = data.draw(st.lists(st.sampled_from(table.records), max_size=10)) if table.records else []

    told = data.draw(st.permutations([*table.records, *twice]))

    assert reconstruct(told) == {("orders", key): row for key, row in table.rows.items()}
    for key, row in table.rows.items():
        mine = [one for one in told if one.entity_id in (*key, "")]
        state = row_at(mine, at(1_000))
        assert state is not None
        assert state.row == row


# -- over HTTP


class Reads:
    """Notes in memory, or is away."""

    def __init__(self) -> None:
        self.noted: list[dict[str, str]] = []
        self.is_away = False

    async def add(self, **said: str) -> None:
        if self.is_away:
            raise Unavailable("the database does not answer in time")
        acting = current()
        assert acting is not None
        self.noted.append({**said, "acting": acting.actor})


class Asking:
    """The audit over HTTP: `audit` is what it answers from."""

    def __init__(self, store: Any) -> None:
        self.reads = Reads()
        self.app = build(Resources(settings_of({})), [Slice(name="audit", routers=(routes(store, self.reads),))], _who)

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": "Bearer auditor", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            yield client

    async def get(self, path: str, **query: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.get(f"/audit/{path}", params={name.rstrip("_"): value for name, value in query.items()})


async def _who(token: str, *, sensitive: bool = False) -> Principal:
    if token not in ("auditor", "household"):
        raise Unauthenticated("who?")
    return Principal(subject=f"staff/{token}", scopes=frozenset({Scope.AUDIT_READ} if token == "auditor" else ()))


PATHS = ("entities/orders/a", "actors/x", "requests/x", "transactions/7", "records", "export")


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_shown_of_what_is_not_noted(path: str) -> None:
    asked = Asking(await kept(change(1, transaction=7)))
    asked.reads.is_away = True

    answer = await asked.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "orders" not in answer.text


async def test_whoever_reads_is_noted_with_what_he_asked_for_even_if_it_is_not_there() -> None:
    asked = Asking(await kept())

    async with asked.client(**{"x-request-id": "request-0001"}) as client:
        assert (await client.get("/audit/entities/orders/a%00b/at?time=2026-01-01T00:00:00Z")).status_code == 404

    assert asked.reads.noted == [
        {
            "actor": "staff/auditor",
            "request_id": "request-0001",
            "path": "/audit/entities/orders/a�b/at",
            "query": "time=2026-01-01T00:00:00Z",
            "acting": "staff/auditor",
        }
    ]


@pytest.mark.parametrize("path", PATHS)
async def test_whoever_may_not_read_is_turned_away(path: str) -> None:
    asked = Asking(await kept(change(1)))

    async with asked.client(authorization="Bearer household") as client:
        assert (await client.get(f"/audit/{path}")).status_code == 403
    async with asked.client(authorization="Bearer stranger") as client:
        assert (await client.get(f"/audit/{path}")).status_code == 401
    assert asked.reads.noted == []


@pytest.mark.parametrize(
    "time", ["2026-01-01T00:00:00", "2026-01-01", "1700000000", "", "yesterday", "0001-01-01T00:00:00+14:00"]
)
@pytest.mark.parametrize("path", ["entities/orders/a/at?time=", "records?from=", "records?to=", "export?to="])
async def test_time_without_an_offset_or_that_is_none_is_refused(path: str, time: str) -> None:
    asked = Asking(await kept(change(1)))

    async with asked.client() as client:
        answer = await client.get(f"/audit/{path}{time.replace('+', '%2B')}")

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")


@pytest.mark.parametrize("path", ["records", "export", "entities/orders/a/diff"])
async def test_interval_that_ends_before_it_begins_is_refused(path: str) -> None:
    answer = await Asking(await kept(change(1))).get(path, from_=at(2).isoformat(), to=at(1).isoformat())

    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/bad-interval")


@pytest.mark.parametrize("path", ["records", "entities/orders/a", "transactions/7"])
@pytest.mark.parametrize("query", [{"limit": 201}, {"limit": 0}, {"after": "bm8"}, {"after": "WyIiLDFd" * 60}])
async def test_page_that_is_too_long_or_begins_nowhere_is_refused(path: str, query: dict[str, Any]) -> None:
    assert (await Asking(await kept(change(1, transaction=7))).get(path, **query)).status_code == 422


async def test_row_is_told_as_it_was_and_since_which_record() -> None:
    created = change(1, Operation.CREATE, after={"n": 1})
    deleted = change(5, Operation.DELETE, before={"n": 1})
    asked = Asking(await kept(created, deleted, change(7, Operation.TRUNCATE)))

    early, there, gone, later = [
        await asked.get("entities/orders/a/at", time=at(second).isoformat()) for second in (0, 3, 5, 9)
    ]

    assert (early.status_code, early.json()["type"]) == (404, "/problems/no-such-entity")
    assert (there.json()["row"], there.json()["is_gone"], there.json()["by"]["id"]) == ({"n": 1}, False, created.id)
    for answer in (gone, later):
        assert (answer.json()["row"], answer.json()["is_gone"], answer.json()["by"]["id"]) == (None, True, deleted.id)


async def test_difference_names_the_record_that_each_column_is_by() -> None:
    rows: list[Row] = [{"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 0, "c": 5}, {"a": 1, "b": 2, "c": 0}]
    created = change(1, Operation.CREATE, after=rows[0])
    first, second = (change(n + 2, before=rows[n], after=rows[n + 1]) for n in range(2))
    asked = Asking(await kept(created, first, second, change(9, before=rows[2], after={})))

    found = (await asked.get("entities/orders/a/diff", from_=at(1).isoformat(), to=at(5).isoformat())).json()

    assert found["columns"] == {
        "a": {"before": 0, "after": 1, "by": first.id},
        "b": {"before": 0, "after": 2, "by": second.id},
    }
    assert [one["id"] for one in found["records"]] == [first.id, second.id]
    assert found["is_whole"]


async def test_difference_of_a_row_that_came_and_of_one_that_went_with_its_table() -> None:
    created, emptied = change(2, Operation.CREATE, after={"a": 1}), change(4, Operation.TRUNCATE)
    asked = Asking(await kept(created, emptied))

    came = await asked.get("entities/orders/a/diff", from_=at(1).isoformat(), to=at(3).isoformat())
    went = await asked.get("entities/orders/a/diff", from_=at(3).isoformat(), to=at(5).isoformat())
    never = await asked.get("entities/orders/a/diff", from_=at(0).isoformat(), to=at(1).isoformat())

    assert came.json()["columns"] == {"a": {"before": None, "after": 1, "by": created.id}}
    assert went.json()["columns"] == {"a": {"before": 1, "after": None, "by": emptied.id}}
    assert never.status_code == 404


async def test_timeline_has_the_truncations_since_the_row_is_there_and_no_earlier_ones() -> None:
    emptied = [change(n, Operation.TRUNCATE) for n in (1, 3, 5)]
    created = change(2, Operation.CREATE)
    asked = Asking(await kept(*emptied, created, change(4, table="others")))

    first = (await asked.get("entities/orders/a", limit=2)).json()
    rest = (await asked.get("entities/orders/a", limit=2, after=first["next"])).json()

    assert [one["id"] for one in (*first["items"], *rest["items"])] == [created.id, emptied[1].id, emptied[2].id]


async def test_transaction_of_many_records_comes_in_pages_each_record_once() -> None:
    records = [change(n + 2, second=9, transaction=7, key={"order_id": n}) for n in range(450)]
    asked = Asking(await kept(context(1, ADA, second=9, transaction=7), *records))
    found: list[dict[str, Any]] = []
    after: str | None = ""
    for _ in range(5):
        page = (await asked.get("transactions/7", limit=200, **({"after": after} if after else {}))).json()
        found += page["items"]
        if (after := page["next"]) is None:
            break

    assert [one["id"] for one in found] == [one.id for one in records]
    assert {one["who"]["actor"] for one in found} == {"staff/ada"}


async def test_contexts_are_listed_only_where_they_are_asked_for() -> None:
    asked = Asking(await kept(context(1, ADA, second=9, transaction=7), change(2, second=9, transaction=7)))

    for query, types in (({}, ["orders"]), ({"type": "audit_context"}, ["audit_context"]), ({"type": "x"}, [])):
        listed = (await asked.get("records", **query)).json()["items"]
        exported = (await asked.get("export", **query)).text.splitlines()
        assert [one["entity_type"] for one in listed] == types
        assert [json.loads(line)["entity_type"] for line in exported] == types


async def test_records_of_one_moment_are_divided_into_pages_without_loss() -> None:
    records = [change(n, second=n // 3, key={"order_id": n}) for n in range(10)]
    asked = Asking(await kept(*reversed(records)))
    first = (await asked.get("records", limit=4, from_=at(1).isoformat(), to=at(3).isoformat())).json()
    second = (
        await asked.get("records", limit=4, from_=at(1).isoformat(), to=at(3).isoformat(), after=first["next"])
    ).json()

    assert [one["id"] for one in (*first["items"], *second["items"])] == [one.id for one in records[3:9]]


class Fading(MemoryAuditStore):
    """Answers so many pages, and then no more."""

    def __init__(self, store: MemoryAuditStore, pages: int, error: Exception) -> None:
        self.entries = store.entries
        self.left, self.error = pages, error

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        if question.entity_type != "audit_context":
            self.left -= 1
            if self.left < 0:
                raise self.error
        return await super().find(question, after, limit)


def some(total: int) -> Iterator[Record]:
    return (change(n, key={"order_id": n}) for n in range(total))


@pytest.mark.parametrize("error", [Unavailable("mongo does not answer in time"), RuntimeError("a mistake")])
async def test_export_that_breaks_off_says_so_in_its_last_line(error: Exception) -> None:
    asked = Asking(Fading(await kept(*some(450)), 2, error))

    answer = await asked.get("export")

    *lines, last = map(json.loads, answer.text.splitlines())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(lines) == 400
    assert not any("error" in line for line in lines)
    assert last["error"]
    assert last["status"] == (503 if isinstance(error, Unavailable) else 500)


async def test_export_that_cannot_begin_has_the_status_of_what_is_wrong() -> None:
    asked = Asking(Fading(await kept(*some(5)), 0, Unavailable("mongo does not answer in time")))

    assert (await asked.get("export")).status_code == 503


async def test_export_reads_no_further_than_it_is_listened_to() -> None:
    store = Counted(await kept(*some(1_000)))
    records = everything(store, Question(by_time=True))

    for _ in range(3):
        await anext(records)
    await records.aclose()

    assert len([one for one in store.asked if one.entity_type != "audit_context"]) == 1


async def test_export_has_every_record_once_in_the_order_of_commits() -> None:
    answer = await Asking(await kept(*reversed(list(some(450))))).get("export")

    assert [json.loads(line)["key"]["order_id"] for line in answer.text.splitlines()] == list(range(450))


async def test_number_that_json_has_not_is_shown_all_the_same() -> None:
    asked = Asking(await kept(change(1, after={"n": float("nan"), "m": float("inf")})))

    assert (await asked.get("entities/orders/a")).status_code == 200
    assert len((await asked.get("export")).text.splitlines()) == 1


class Endless(MemoryAuditStore):
    """There is always one more."""

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        await asyncio.sleep(0)  # as long as a server takes, others have their turn
        if question.entity_type == "audit_context":
            return []
        begin = int(after.id.split("-")[1], 16) + 1 if after else 0
        return [change(n, key={"order_id": n}, second=0) for n in range(begin, begin + limit)]


async def test_client_that_goes_away_ends_its_export() -> None:
    app = Asking(Endless()).app
    async with asyncio.timeout(20):  # the server waits for what it still answers
        async with (
            serving(app) as address,
            httpx.AsyncClient(headers={"authorization": "Bearer auditor"}) as client,
            client.stream("GET", f"http://{address}/audit/export") as answer,
        ):
            assert json.loads(await anext(answer.aiter_lines()))["key"] == {"order_id": 0}
