"""Two processes, a table, a Redis and the news between them, any of which may be slow, fail or forget at any step.

The engine's real code on a store in memory; the event loop is cranked by hand, and time passes when a rule says so.
Whatever happens: a reader never gets what was never there, nor anything older than what its own process was told to
have changed; and once all news has come, nobody gets anything old as if it were fresh.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from structlog.testing import capture_logs

from showcase.caching.application import entry as entries
from showcase.caching.application.cache import Cache
from showcase.caching.application.ports import Store
from showcase.caching.domain import FLOOR, Key, Kind, Options
from showcase.kernel.errors import Unavailable
from tests.caches import EPOCH, ROW, Row
from tests.fakes_cache import MemoryServer, MemoryStore

T = TypeVar("T")
CHECKED = settings(
    max_examples=600,
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what fails is shown as it was found: to make it shorter takes half a minute
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
UNVERSIONED = Kind("plain", Row, tags=ROW.tags)
PROCESSES = range(2)
NAMES = ("a", "b")
ALONE_S = 1.0
"""For so long a process may believe what it loaded while no news came."""
TURNS = 2_000
"""Of the event loop: more than anything takes that waits for nothing."""
LOADING = ("before the query", "after the query")
NAMED = st.sampled_from((*NAMES[:1] * 3, *NAMES))
NO_FAULT = ("", "")
POINTS = {
    "before the query": 1,
    "after the query": 3,
    "before read": 1,
    "after read": 3,
    "before cuts": 1,
    "after cuts": 1,
    "before lease": 1,
    "after lease": 1,
    "before write": 2,
    "after write": 1,
    "before remove": 2,
    "after remove": 2,
    "before cut": 1,
    "after cut": 1,
    "before expire": 1,
    "after expire": 1,
    "before release": 1,
    "after release": 1,
}
"""Where something may go wrong, and how likely: what can come between matters most."""
FAULTS = st.one_of(
    st.just(NO_FAULT),
    st.tuples(
        st.sampled_from([point for point, weight in POINTS.items() for _ in range(weight)]),
        st.sampled_from(("stops", "stops", "stops", "fails", "comes late")),
    ),
)


class CrankedLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: `turn` does what can be done now, by a clock that somebody else sets."""

    now = 1_000.0

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        for _ in range(TURNS):
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]  # nothing public tells
                return
        raise AssertionError("it never rests")


class Line:
    """The way between a process and what it asks; a call may stop on it, fail, or arrive when nobody waits for it."""

    def __init__(self) -> None:
        self.planned: dict[str, str] = {}
        self.stopped: list[tuple[str, asyncio.Future[None]]] = []

    async def passes(self, point: str) -> None:
        fault = self.planned.pop(point, "")
        if fault == "stops" or (fault and point in LOADING):
            await self.stop(point)
        elif fault:
            raise Unavailable(f"{fault} {point}")

    async def stop(self, point: str) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.stopped.append((point, gate))
        await gate

    def let_go(self, place: int, error: Exception | None = None) -> None:
        _, gate = self.stopped.pop(place % len(self.stopped))
        if gate.done():  # whoever waited was cancelled
            return
        if error:
            gate.set_exception(error)
        else:
            gate.set_result(None)

    def time_out(self) -> None:
        """No call waits for as long as time passes here."""
        for place in range(len(self.stopped) - 1, -1, -1):
            if self.stopped[place][0] not in LOADING:
                self.let_go(place, Unavailable("too late"))


class SlowStore:
    """A store at the end of a line."""

    def __init__(self, store: Store, line: Line) -> None:
        self._store = store
        self._line = line
        self._late: set[asyncio.Task[None]] = set()

    async def read(self, names: Sequence[str]) -> Sequence[bytes | None]:
        return await self._call("read", lambda: self._store.read(names))

    async def lease(self, names: Sequence[str], holder: str, ttl_s: float) -> tuple[float, Sequence[bool]]:
        return await self._call("lease", lambda: self._store.lease(names, holder, ttl_s))

    async def release(self, names: Sequence[str], holder: str) -> None:
        await self._call("release", lambda: self._store.release(names, holder))

    async def write(self, name: str, entry: bytes, *, ttl_s: float, holder: str | None = None, tell: bool) -> bool:
        return await self._call("write", lambda: self._store.write(name, entry, ttl_s=ttl_s, holder=holder, tell=tell))

    async def remove(self, name: str, entry: bytes, *, ttl_s: float) -> None:
        await self._call("remove", lambda: self._store.remove(name, entry, ttl_s=ttl_s))

    async def expire(self, name: str) -> None:
        await self._call("expire", lambda: self._store.expire(name))

    async def cut(self, tag: str) -> float:
        return await self._call("cut", lambda: self._store.cut(tag))

    async def cuts(self, tags: Sequence[str]) -> Sequence[float]:
        return await self._call("cuts", lambda: self._store.cuts(tags))

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        if self._line.planned.get(f"before {name}") == "comes late":
            task = asyncio.get_running_loop().create_task(self._later(f"before {name}", call))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        await self._line.passes(f"before {name}")
        answer = await call()
        await self._line.passes(f"after {name}")
        return answer

    async def _later(self, point: str, call: Callable[[], Awaitable[object]]) -> None:
        with suppress(Unavailable):
            await self._line.stop(f"{point}, late")
            await call()


class Process:
    """A cache, its lines, and what it was told to have changed: the place of each row in its history."""

    def __init__(self, server: MemoryServer, number: int, loop: CrankedLoop) -> None:
        store = MemoryStore(server, f"process {number}")
        self.line = Line()
        self.draws = 0
        self.cache = Cache(SlowStore(store, self.line), clock=loop.time, wall=lambda: EPOCH + loop.now, draw=self._draw)
        self.news = store.follow(self.cache)
        self.news.is_held = True
        self.acknowledged = dict.fromkeys(NAMES, 0)

    def _draw(self) -> float:
        self.draws += 1
        return (self.draws * 0.618) % 1


class Caches(RuleBasedStateMachine):
    """Rows have a history; a reader may get any of it from where its process's own last change is."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = CrankedLoop()
        self.ticks = 0
        self.server = MemoryServer(now=self._tick)
        self.worker = MemoryStore(self.server, "worker")
        self.history: dict[str, list[Row | None]] = {name: [Row(1, name, (name,))] for name in NAMES}
        self.sequence = 1
        self.captured: list[tuple[str, int, bool]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_failing = False
        asyncio.set_event_loop(self.loop)
        self.processes = [self._run(self._start(number)) for number in PROCESSES]

    @initialize(
        kind=st.sampled_from((ROW, UNVERSIONED)),
        absent_s=st.sampled_from((0, 30)),
        early=st.sampled_from((0.0, 100.0)),
        stale_s=st.sampled_from((0, 60)),
        fail_safe_s=st.sampled_from((0, 120)),
        soft_s=st.sampled_from((0, 1)),
    )
    def configured(
        self, kind: Kind[Row], absent_s: int, early: float, stale_s: int, fail_safe_s: int, soft_s: int
    ) -> None:
        self.kind = kind
        self.options = Options(
            duration=timedelta(seconds=60),
            near=timedelta(seconds=20),
            absent=timedelta(seconds=absent_s),
            early=early,
            stale=timedelta(seconds=stale_s),
            fail_safe=timedelta(seconds=fail_safe_s),
            soft=timedelta(seconds=soft_s) if soft_s else None,
        )

    # -- what people do

    @rule(number=st.sampled_from(PROCESSES), name=NAMED, fault=FAULTS)
    def read(self, number: int, name: str, fault: tuple[str, str]) -> None:
        self._begin(self._read(self.processes[number], name), number, fault)

    @rule(number=st.sampled_from(PROCESSES), fault=FAULTS)
    def read_both(self, number: int, fault: tuple[str, str]) -> None:
        self._begin(self._read_both(self.processes[number]), number, fault)

    @rule(
        number=st.sampled_from(PROCESSES),
        name=NAMED,
        is_deletion=st.sampled_from((False, False, True)),
        how=st.sampled_from(("remove", "remove", "remove all versions", "set", "tag", "clear")),
        fault=FAULTS,
    )
    def write(self, number: int, name: str, is_deletion: bool, how: str, fault: tuple[str, str]) -> None:
        """Change a row, then tell the cache, in one way or another; only then it is acknowledged."""
        self._begin(self._write(self.processes[number], name, is_deletion, how), number, fault)

    @rule(name=NAMED, is_deletion=st.booleans())
    def change_behind_the_caches(self, name: str, is_deletion: bool) -> None:
        """As `psql` does."""
        self._change(name, is_deletion)

    @rule(number=st.sampled_from(PROCESSES), name=NAMED, fault=FAULTS)
    def expire(self, number: int, name: str, fault: tuple[str, str]) -> None:
        self._begin(self._expire(self.processes[number], name), number, fault)

    @rule(seconds=st.sampled_from((0.01, 0.1, 0.1, 1.1, 6.0, 25.0, 65.0)))
    def pass_time(self, seconds: float) -> None:
        if seconds > 1:
            for process in self.processes:
                process.line.time_out()
        self.loop.now += seconds
        self._do(self._answer_pings)

    # -- what goes wrong

    @precondition(lambda self: any(process.line.stopped for process in self.processes))
    @rule(number=st.sampled_from(PROCESSES), place=st.integers(0, 9))
    def let_go(self, number: int, place: int) -> None:
        line = self.processes[number].line
        if line.stopped:
            line.let_go(place)
            self._turn()

    @precondition(lambda self: any(process.news.waiting for process in self.processes))
    @rule(number=st.sampled_from(PROCESSES), place=st.integers(0, 9), is_repeated=st.booleans())
    def deliver_news(self, number: int, place: int, is_repeated: bool) -> None:
        """In any order."""
        news = self.processes[number].news
        if news.waiting:
            deliver = news.repeat if is_repeated else news.deliver
            self._do(lambda: deliver(place % len(news.waiting)))

    @precondition(lambda self: self.captured and not self.server.away)
    @rule(place=st.integers(0, 9), is_repeated=st.booleans())
    def deliver_a_captured_change(self, place: int, is_repeated: bool) -> None:
        """In any order."""
        self._invalidate(self.captured[place % len(self.captured)])
        if not is_repeated:
            del self.captured[place % len(self.captured)]
        self._turn()

    @precondition(lambda self: not self.server.away)
    @rule(number=st.sampled_from(PROCESSES), is_back=st.sampled_from((True, True, False)))
    def lose_news(self, number: int, is_back: bool) -> None:
        news = self.processes[number].news
        if news._is_up:
            self._do(news.cut_off)
        if is_back:
            self._do(news.connect)

    @rule(is_away=st.sampled_from((False, False, False, True)))
    def redis_goes_or_comes(self, is_away: bool) -> None:
        self._do(lambda: setattr(self.server, "away", is_away))

    @precondition(lambda self: not self.server.away)
    @rule()
    def redis_starts_empty(self) -> None:
        def restart() -> None:
            self.server.away = True
            self.server.forget()
            self.server.away = False

        self._do(restart)

    @rule(name=NAMED, what=st.sampled_from(("entry", "lease", "cuts")))
    def redis_makes_room(self, name: str, what: str) -> None:
        key = self.kind.key(name).name
        if what == "entry":
            self.server.forget(key)
        elif what == "lease":
            self.server.leases.pop(key, None)
        else:
            self.server.forget_cuts()

    @rule(is_failing=st.sampled_from((False, False, True)))
    def the_database_fails_or_works_again(self, is_failing: bool) -> None:
        self.is_failing = is_failing

    # -- in the end

    def all_is_quiet(self) -> None:
        """All news comes, all that is owed is paid, all loads end: now nobody gets anything old as if it were fresh."""
        self.is_failing = False
        self._do(self._mend)
        for _ in range(400):
            if self._is_quiet():
                break
            self.loop.now += 0.05
            self._do(self._go_on)
        assert self._is_quiet()
        for change in self.captured:
            self._invalidate(change)
        self.captured.clear()
        for process in self.processes:
            self._do(process.news.deliver_all)
        self.loop.now += ALONE_S
        for process in self.processes:
            for name in NAMES:
                answer = self._run(process.cache.answer(self.kind.key(name), self._query(process, name), self.options))
                assert answer.is_stale or answer.value == self.history[name][-1], answer

    def teardown(self) -> None:
        try:
            if hasattr(self, "kind"):
                self.all_is_quiet()
        finally:
            for process in self.processes:
                self._begin(process.cache.close())
            self._turn()
            asyncio.set_event_loop(None)
            self.loop.close()

    # -- how

    def _mend(self) -> None:
        self.server.away = False
        for process in self.processes:
            process.line.planned.clear()
            if not process.news._is_up:
                process.news.connect()

    def _go_on(self) -> None:
        for process in self.processes:
            for _ in range(len(process.line.stopped)):
                process.line.let_go(0)
        self._answer_pings()

    def _answer_pings(self) -> None:
        for process in self.processes:
            if process.news._is_up:
                process.news.trust(math.inf)

    def _is_quiet(self) -> bool:
        return not self.tasks and not any(
            process.cache._tasks or process.cache.far.owed or process.line.stopped for process in self.processes
        )

    def _tick(self) -> float:
        self.ticks += 1
        return EPOCH + self.loop.now + 1e-6 * self.ticks

    async def _start(self, number: int) -> Process:
        return Process(self.server, number, self.loop)

    async def _read(self, process: Process, name: str) -> None:
        since = process.acknowledged[name]
        with suppress(OSError, Unavailable):
            key = self.kind.key(name)
            answer = await process.cache.answer(key, self._query(process, name), self.options)
            assert answer.value in self.history[name][since:], (answer, since)

    async def _read_both(self, process: Process) -> None:
        since = dict(process.acknowledged)
        keys = {self.kind.key(name): name for name in NAMES}

        async def load(missing: Sequence[Key[Row]]) -> Mapping[Key[Row], Row | None]:
            return {key: await self._query(process, keys[key])() for key in missing}

        with suppress(OSError, Unavailable):
            for key, value in (await process.cache.get_many_or_set(list(keys), load, self.options)).items():
                assert value in self.history[keys[key]][since[keys[key]] :], (key, value, since)

    def _query(self, process: Process, name: str) -> Callable[[], Coroutine[Any, Any, Row | None]]:
        async def query() -> Row | None:
            await process.line.passes("before the query")
            found = self.history[name][-1]
            self.loop.now += 0.05
            await process.line.passes("after the query")
            if self.is_failing:
                raise OSError("no database")
            return found

        return query

    def _change(self, name: str, is_deletion: bool) -> tuple[int, bool]:
        """A change of a row as Debezium tells it: the row's version, and whether it is gone."""
        last = self.history[name][-1]
        if is_deletion and last is not None:
            self.history[name].append(None)
            change = last.version, True
        else:
            self.sequence += 1
            self.history[name].append(Row(self.sequence, name, (name,)))
            change = self.sequence, False
        self.captured.append((name, *change))
        return change

    async def _write(self, process: Process, name: str, is_deletion: bool, how: str) -> None:
        version, is_gone = self._change(name, is_deletion)
        place, row = len(self.history[name]) - 1, self.history[name][-1]
        key, cache = self.kind.key(name), process.cache
        if how == "set" and row is not None and self.kind is ROW:
            for fault in ("before write", "after write", "before lease", "after lease"):
                process.line.planned.pop(fault, None)  # a late one would come after a floor that Redis has forgotten
            await cache.set(key, row, self.options)
        elif how == "tag" and not self.options.absent:  # what is not there has no tags
            await cache.remove_by_tag(name)
        elif how == "clear":
            await cache.clear()
        elif how == "remove" and self.kind is ROW:
            await cache.remove(key, version, is_gone=is_gone)
        else:
            await cache.remove(key)
        process.acknowledged[name] = max(place, process.acknowledged[name])

    async def _expire(self, process: Process, name: str) -> None:
        await process.cache.expire(self.kind.key(name))

    def _invalidate(self, change: tuple[str, int, bool]) -> None:
        name, version, is_gone = change
        floor = entries.floor(version if self.kind is ROW else 0, is_gone=is_gone)
        key = self.kind.key(name).name
        self._run(self.worker.remove(key, entries.Codec().write(key, floor), ttl_s=FLOOR.total_seconds()))

    def _begin(self, work: Coroutine[Any, Any, None], number: int = 0, fault: tuple[str, str] = NO_FAULT) -> None:
        """Begin something in a process; a fault is waiting for it."""
        point, what = fault
        self.processes[number].line.planned[point] = what
        self.tasks.add(self.loop.create_task(work))
        self._turn()

    def _turn(self) -> None:
        """Everybody goes as far as they can."""
        self.loop.turn()
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            task.result()

    def _do(self, call: Callable[[], object]) -> None:
        """Something that happens in the event loop."""

        async def doing() -> None:
            call()

        self._run(doing())
        self._turn()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        task = self.loop.create_task(work)
        for _ in range(200):
            self.loop.turn()
            if task.done():
                return task.result()
            self.loop.now += 0.05
        raise AssertionError("it never ends")


def test_whatever_happens_nobody_gets_what_is_older_than_what_they_were_promised() -> None:
    with capture_logs():
        run_state_machine_as_test(Caches, settings=CHECKED)
