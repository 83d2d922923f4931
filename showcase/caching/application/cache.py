"""The cache: reads through two levels, loads once, and never keeps an answer that it knows to be old.

Near is this process's memory, far is Redis. How far each may be believed:

- near, as long as news of other processes' changes comes, and nothing of the key was heard since it was read;
- far, as long as nothing is owed to it, and no tag of the entry was cut since;
- a load, unless the key was changed while it went on. Then those get it who were waiting, and nobody keeps it.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import uuid4

import structlog

from showcase.caching.application.counts import Counts
from showcase.caching.application.entry import ABSENT, Codec, Entry
from showcase.caching.application.far import Far
from showcase.caching.application.flight import Flight
from showcase.caching.application.near import Held, Near
from showcase.caching.application.ports import Store
from showcase.caching.domain import DEFAULT, FLOOR, Answer, Key, Options, TooSlow, Uncacheable, earliest, early_by
from showcase.kernel.errors import DomainError, Unavailable

T = TypeVar("T")
Load = Callable[[Sequence[Key[T]]], Awaitable[Mapping[Key[T], T | None]]]

log = structlog.get_logger()

POLL_S = (0.005, 0.05)
"""How often one looks whether another process has finished its load: at first, and in the end."""
LEASE_MARGIN_S = 0.5
FLIGHTS_AT_MOST = 2_000


@dataclass(slots=True, kw_only=True)
class Trip(Generic[T]):
    """One task's way to bring some answers.

    Attributes:
        left: flights that have not landed yet.
        holder: whose the leases are; leased: what it has; floors: up to which version keys were removed.
        has_stale: some flight has an old answer already; has_looked: Redis was asked once.
    """

    left: dict[Key[T], Flight[T]]
    load: Load[T]
    options: Options
    holder: str = ""
    has_stale: bool = False
    has_looked: bool = False
    leased: set[Key[T]] = field(default_factory=set)
    floors: dict[Key[T], int] = field(default_factory=dict)


class Cache:
    """Answers that are kept for a while, near and far.

    It is the `Listener` of its backplane.

    Args:
        store: the second level.
        near_entries, near_bytes: how many answers the memory of this process holds, and about how large they are.
        alone: for how long an answer is held that was loaded while no news came.
        clock, wall: seconds; the first never goes back, the second is Unix time.
        draw: a number from 0 up to 1, by chance.
    """

    def __init__(
        self,
        store: Store,
        *,
        near_entries: int = 10_000,
        near_bytes: int = 64_000_000,
        alone: timedelta = timedelta(seconds=1),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.counts = Counts()
        self.near = Near(entries=near_entries, size_bytes=near_bytes)
        self._codec = Codec()
        self.far = Far(store, self._codec, self.counts, clock)
        self._alone_s = alone.total_seconds()
        self._clock = clock
        self._wall = wall
        self._draw = draw
        self._flights: dict[str, Flight[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_until = -math.inf
        self._is_paying = False

    # -- reading

    async def get_or_set(
        self, key: Key[T], factory: Callable[[], Awaitable[T | None]], options: Options = DEFAULT
    ) -> T | None:
        """The cached answer, or the factory's, which is then cached. None where there is nothing.

        Any number of readers, in any number of processes, share one call of the factory. It runs in a task of its own,
        so outside of the caller's transaction, and goes on when the caller has gone. Answers that cannot be changed
        (they have a hash) are shared by all who ask; of others everybody gets an own one.

        Raises what the factory raises, unless there is an old answer (`Options.fail_safe`); TooSlow when it takes too
        long; Uncacheable for what is not of the key's kind. Never an error of the store.
        """
        held: Any = self.near.get(key.name)
        if held is not None:
            now = self._clock()
            if now < held.early_from and (now < self._heard_until or held.is_brief):
                self.near.touch(key.name)
                self.counts.near += 1
                if held.is_absent:
                    self.counts.absent += 1
                value: T | None = held.value if held.is_shared else self._codec.value(key.kind, held.payload)
                return value
        return (await self.answer(key, factory, options)).value

    async def answer(
        self, key: Key[T], factory: Callable[[], Awaitable[T | None]], options: Options = DEFAULT
    ) -> Answer[T]:
        """As `get_or_set`, and tells where the answer came from, and whether it is an old one."""

        async def one(keys: Sequence[Key[T]]) -> Mapping[Key[T], T | None]:
            return {key: await factory()}

        held = self._held(key)
        if held is not None and self._counts_now(held):
            if self._wants_early(held, options) and key.name not in self._flights and not self._is_full():
                self.counts.early += 1
                self._start([key], one, options, early=True)
            return self._told(key, held, "near")
        flight = self._flights.get(key.name)
        if flight is None:
            flight = (await self._look([key], one, options))[key]
        landed, source = await flight.landed()
        return self._told(key, landed, source)

    async def get_many_or_set(
        self, keys: Sequence[Key[T]], load: Load[T], options: Options = DEFAULT
    ) -> dict[Key[T], T | None]:
        """As `get_or_set` for many at once: one call of Redis, and one of `load` for all that are not there.

        Args:
            load: gets the keys that are missing, and returns what there is for each; nothing where there is nothing.
        """
        answers: dict[Key[T], T | None] = {}
        flights: dict[Key[T], Flight[T]] = {}
        missing: list[Key[T]] = []
        for key in dict.fromkeys(keys):
            held = self._held(key)
            if held is not None and self._counts_now(held):
                answers[key] = self._told(key, held, "near").value
            elif key.name in self._flights:
                flights[key] = self._flights[key.name]
            else:
                missing.append(key)
        if missing:
            flights |= await self._look(missing, load, options)
        for key, flight in flights.items():
            landed, source = await flight.landed()
            answers[key] = self._told(key, landed, source).value
        return {key: answers[key] for key in keys}

    async def get(self, key: Key[T]) -> T | None:
        """The cached answer if there is a fresh one, and None otherwise; also while Redis is away."""
        held = self._held(key)
        if held is not None and self._counts_now(held):
            return self._told(key, held, "near").value
        try:
            found = (await self.far.read([key])).get(key)
        except Unavailable:
            return None
        if found is None or found.is_floor or found.fresh_until <= self._wall():
            return None
        return self._told(key, self._from_far(found, DEFAULT), "far").value

    # -- changing

    async def set(self, key: Key[T], value: T, options: Options = DEFAULT) -> bool:
        """Store an answer that is known, unless a newer one is there; no process gives out an older one from now on.

        False when it was not stored. When Redis does not answer, older answers are removed as soon as it does.
        Raises Uncacheable.
        """
        entry = self._entry(key, value, options)
        self._drop(key.name, entry.version, is_gone=False)
        try:
            at, _ = await self.far.lease([], "", 0)
            entry = self._entry(key, value, options, at)
            return await self.far.write(key.name, entry, ttl_s=self._ttl_s(entry), holder=None)
        except Unavailable:
            await self.far.remove(key.name, entry.version, is_gone=False)
            return False
        finally:
            self._drop(key.name, entry.version, is_gone=False)

    async def remove(self, key: Key[Any], version: int = 0, *, is_gone: bool = False) -> bool:
        """What is older than `version` is no longer valid; without a version, whatever there is.

        From then on, this process gives out nothing older, and the others as soon as they hear of it. A load that is
        under way is not kept. Safe to repeat, and in any order.

        Args:
            is_gone: what is of that version is not valid either: it was deleted.

        False when Redis does not answer: it is told as soon as it does, and until then the others do not know.
        """
        self._drop(key.name, version, is_gone=is_gone)
        try:
            return await self.far.remove(key.name, version, is_gone=is_gone)
        finally:
            self._drop(key.name, version, is_gone=is_gone)  # what was read from Redis meanwhile

    async def expire(self, key: Key[Any]) -> bool:
        """An answer is stale from now on, and kept for those who accept that. False when Redis does not answer."""
        self._age(key.name)
        try:
            return await self.far.expire(key.name)
        finally:
            self._age(key.name)  # what was read from Redis meanwhile

    async def remove_by_tag(self, tag: str) -> bool:
        """All answers with a tag are no longer valid. False when Redis does not answer: then it is told later."""
        if not tag:
            raise ValueError("a tag is not empty; clear() removes everything")
        return await self._cut(tag)

    async def clear(self) -> bool:
        """No answer is valid any longer. False when Redis does not answer: then it is told later."""
        return await self._cut("")

    # -- news: the Listener of the backplane

    def heard_removed(self, name: str, version: int, is_gone: bool) -> None:
        """See `ports.Listener`."""
        self.counts.heard += 1
        self._drop(name, version, is_gone=is_gone)

    def heard_expired(self, name: str) -> None:
        """See `ports.Listener`."""
        self.counts.heard += 1
        self._age(name)

    def heard_cut(self, tag: str, at: float) -> None:
        """See `ports.Listener`."""
        self.counts.heard += 1
        self.far.heard_cut(tag, at)
        self.near.cut(tag, at)
        self._detach_all()  # nobody knows yet which tags their answers have

    def trusted(self, until: float) -> None:
        """See `ports.Listener`."""
        self._heard_until = self.far.trusted_until = until
        if self.far.owed and not self._is_paying:
            self._is_paying = True
            self._spawn(self._pay())

    def lost(self) -> None:
        """See `ports.Listener`."""
        if self._heard_until == -math.inf:  # since then nothing was held but for a moment
            return
        self.counts.lost += 1
        self._heard_until = -math.inf
        self.far.lost()
        self.near.doubt(self._clock())
        self._detach_all()

    async def close(self) -> None:
        """End loads that nobody waits for."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- near

    def _held(self, key: Key[T]) -> Held[T] | None:
        held: Held[Any] | None = self.near.get(key.name)
        if held is not None:
            self.near.touch(key.name)
        return held

    def _counts_now(self, held: Held[Any]) -> bool:
        return self._clock() < held.fresh_until and self._is_sure(held)

    def _is_sure(self, held: Held[Any]) -> bool:
        return held.is_brief or self._clock() < self._heard_until

    def _wants_early(self, held: Held[Any], options: Options) -> bool:
        """Whether this reader refreshes an answer that is still fresh (XFetch)."""
        if not options.early or held.is_brief or held.is_absent:
            return False
        return held.expires - self._clock() <= early_by(options.early, held.load_s, 1.0 - self._draw())

    def _told(self, key: Key[T], held: Held[T], source: str) -> Answer[T]:
        """What one reader gets. Counted here."""
        ttl_s = held.expires - self._clock()
        is_stale = ttl_s <= 0 and source != "loaded"
        if is_stale:
            self.counts.stale += 1
        elif source == "near":
            self.counts.near += 1
        elif source == "far":
            self.counts.far += 1
        else:
            self.counts.misses += 1
        if held.is_absent:
            self.counts.absent += 1
            return Answer(None, source, is_stale, ttl_s)
        value = held.value if held.is_shared else self._codec.value(key.kind, held.payload)
        return Answer(value, source, is_stale, ttl_s)

    def _drop(self, name: str, version: int, *, is_gone: bool) -> None:
        self._detach(name)
        held = self.near.get(name)
        if held is not None and held.is_older(version, is_gone=is_gone):
            self.near.drop(name)

    def _age(self, name: str) -> None:
        self._detach(name)
        if (held := self.near.get(name)) is not None:
            held.age(self._clock())

    def _detach(self, name: str) -> None:
        """Let those who wait for a load have it, and the next reader begin another one."""
        flight = self._flights.pop(name, None)
        if flight is not None:
            flight.is_overtaken = True

    def _detach_all(self) -> None:
        for name in list(self._flights):
            self._detach(name)

    async def _cut(self, tag: str) -> bool:
        self.near.cut(tag, math.inf)
        self._detach_all()
        try:
            return await self.far.cut(tag)
        finally:
            self.near.cut(tag, math.inf)  # what was read from Redis meanwhile
            self._detach_all()

    async def _pay(self) -> None:
        try:
            owed = self.far.owed
            if await self.far.pay_all():
                log.info("redis was told what it had missed", changes=owed)
        finally:
            self._is_paying = False

    # -- loading

    async def _look(self, keys: Sequence[Key[T]], load: Load[T], options: Options) -> dict[Key[T], Flight[T]]:
        """Begin flights. The reader itself looks into Redis first: a hit there is worth no task of its own."""
        trip = self._begin(keys, load, options)
        flights = dict(trip.left)
        try:
            if not trip.has_stale:  # that may be due before Redis answers
                await self._read_far(trip)
                trip.has_looked = True
        finally:  # also when the reader has gone
            if trip.left:
                self._spawn(self._fly(trip))
        return flights

    def _start(self, keys: Sequence[Key[T]], load: Load[T], options: Options, *, early: bool = False) -> None:
        self._spawn(self._fly(self._begin(keys, load, options, early=early)))

    def _begin(self, keys: Sequence[Key[T]], load: Load[T], options: Options, *, early: bool = False) -> Trip[T]:
        if self._is_full(len(keys)):
            raise Unavailable("too many answers are being loaded")
        flights: dict[Key[T], Flight[T]] = {}
        has_stale, is_heard = False, self.far.is_heard
        for key in keys:
            held, newer_than = self._held(key), -math.inf
            if held is not None and early:
                newer_than = self._wall() + held.expires - self._clock()
            flight: Flight[T] = Flight(stale=None, newer_than=newer_than, is_heard=is_heard)
            self._flights[key.name] = flights[key] = flight
            if held is not None:
                has_stale = True
                self._found_stale(flight, held, options, is_sure=self._is_sure(held))
        return Trip(left=flights, load=load, options=options, has_stale=has_stale)

    def _is_full(self, more: int = 1) -> bool:
        return len(self._flights) + more > FLIGHTS_AT_MOST

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self, trip: Trip[T]) -> None:
        """Bring an answer for each key, whatever happens."""
        flights = dict(trip.left)
        try:
            await self._bring(trip)
        except Exception as error:  # whatever the source raises is its readers'
            self._failed(trip, error)
        finally:
            for key, flight in flights.items():
                if not flight.has_landed:  # only at the end of the process
                    flight.landing.cancel()
                self._forget(key, flight)
            if trip.leased:
                with suppress(Unavailable):  # they end by themselves
                    await self.far.release(list(trip.leased), trip.holder)

    def _forget(self, key: Key[Any], flight: Flight[Any]) -> None:
        if self._flights.get(key.name) is flight:
            del self._flights[key.name]

    async def _bring(self, trip: Trip[T]) -> None:
        """Redis's answer, one that another process loads, or the source's: whichever comes first."""
        lease_s = trip.options.hard.total_seconds() + LEASE_MARGIN_S
        give_up_at = self._clock() + lease_s
        pause_s = POLL_S[0]
        if not trip.has_looked:
            await self._read_far(trip)
        while trip.left:
            loaded_at = await self._lease(trip, lease_s) if self._clock() < give_up_at else None
            if loaded_at is None:  # no Redis; or somebody takes the lease again and again
                await self._load(trip, list(trip.left), 0.0)
                return
            if trip.leased:
                await self._read_far(trip)  # another process may have stored it just before it gave its lease back
                if mine := [key for key in trip.left if key in trip.leased]:
                    await self._load(trip, mine, loaded_at)
            trip.left = {key: flight for key, flight in trip.left.items() if not flight.has_landed}
            if trip.left:  # another process loads these
                self.counts.waits += pause_s == POLL_S[0]
                await asyncio.sleep(pause_s * (0.5 + self._draw()))
                pause_s = min(2 * pause_s, POLL_S[1])
                await self._read_far(trip)

    async def _read_far(self, trip: Trip[T]) -> None:
        """Land those flights for which Redis has an answer; tell an old one to the others."""
        try:
            found = await self.far.read(list(trip.left))
        except Unavailable:
            return
        for key, entry in found.items():
            if entry.is_floor:
                trip.floors[key] = entry.version
                continue
            flight, held = trip.left[key], self._from_far(entry, trip.options)
            if entry.fresh_until > max(self._wall(), flight.newer_than + 0.001):
                self._keep(key.name, flight, held, is_stored=True)
                flight.land(held, "far")
                del trip.left[key]
                self._forget(key, flight)
            elif flight.stale is None or flight.stale.is_doubted or flight.stale.expires < held.expires:
                self._found_stale(flight, held, trip.options, is_sure=True)

    async def _lease(self, trip: Trip[T], lease_s: float) -> float | None:
        """Take the leases that nobody has. Returns Redis's time; None without Redis."""
        trip.holder = trip.holder or uuid4().hex
        try:
            at, given = await self.far.lease([key for key in trip.left if key not in trip.leased], trip.holder, lease_s)
        except Unavailable:
            return None
        trip.leased.update(given)
        return at

    async def _load(self, trip: Trip[T], keys: Sequence[Key[T]], loaded_at: float) -> None:
        """Ask the source, once for all keys, and keep what it says.

        Args:
            loaded_at: by Redis's clock; 0 without a lease.
        """
        hard_s = trip.options.hard.total_seconds()
        began = self._clock()
        self.counts.loads += 1
        try:
            async with asyncio.timeout(hard_s) as limit:
                values = await trip.load(keys)
        except BaseException as error:
            self.counts.failed_loads += 1
            if isinstance(error, TimeoutError) and limit.expired():
                raise TooSlow(f"its source took longer than {hard_s:g} s") from error
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
                raise Unavailable("its source was cancelled") from error  # nobody has cancelled its readers
            raise
        finally:
            took_s = self._clock() - began
            self.counts.load_s += took_s
        for key in keys:
            entry = self._entry(key, values.get(key), trip.options, loaded_at, took_s, trip.floors.get(key, 0))
            held, flight = self._from_far(entry, trip.options), trip.left[key]
            if entry.fresh_until > self._wall():  # else it is absent, and that is not to be remembered
                is_stored = await self._store(trip, key, entry) if loaded_at else None
                if is_stored is not False:
                    self._keep(key.name, flight, held, is_stored=bool(is_stored))
            flight.land(held, "loaded")
            del trip.left[key]

    async def _store(self, trip: Trip[T], key: Key[T], entry: Entry[T]) -> bool | None:
        """Whether Redis took it; None when it does not answer."""
        try:
            is_stored = await self.far.write(key.name, entry, ttl_s=self._ttl_s(entry), holder=trip.holder)
        except Unavailable:
            return None
        trip.leased.discard(key)
        self.counts.refused += not is_stored
        return is_stored

    def _keep(self, name: str, flight: Flight[Any], held: Held[Any], *, is_stored: bool) -> None:
        """Hold an answer near, unless the key was changed since the flight began."""
        if flight.is_overtaken:
            return
        if not (is_stored and flight.is_heard and self.far.is_heard):
            held.is_brief = True
            held.fresh_until = held.early_from = min(held.fresh_until, self._clock() + self._alone_s)
        if held.fresh_until > self._clock():
            self.near.put(name, held)

    def _found_stale(self, flight: Flight[T], held: Held[T], options: Options, *, is_sure: bool) -> None:
        """Remember an old answer, in case that nothing better comes; give it out now if that was asked for.

        Args:
            is_sure: that nothing was heard of the key since cannot be because no news came.
        """
        now = self._clock()
        if held.is_absent or now >= held.stale_until:
            return
        flight.stale = held
        if held.is_doubted or not is_sure:
            return
        if now < held.fresh_until or held.expires <= now < held.expires + options.stale.total_seconds():
            flight.land_stale()
        elif options.soft is not None:
            flight.land_stale_in(options.soft.total_seconds())

    def _failed(self, trip: Trip[T], error: Exception) -> None:
        """Its source brought nothing: an old answer is better than an error, unless the error is the answer."""
        is_answer = isinstance(error, DomainError | Uncacheable) and not isinstance(error, Unavailable)
        now = self._clock()
        for key, flight in trip.left.items():
            stale = flight.stale
            if stale is None or is_answer or now >= stale.stale_until:
                flight.fail(error)
                continue
            if not flight.is_overtaken:
                stale.fresh_until = min(now + trip.options.pause.total_seconds(), stale.stale_until)
                stale.is_brief, stale.early_from = True, -math.inf
                self.near.put(key.name, stale)
            flight.land_stale()
            log.warning("an old answer, since its source failed", key=key.name, why=repr(error))

    # -- entries

    def _entry(
        self,
        key: Key[T],
        value: T | None,
        options: Options,
        loaded_at: float = 0.0,
        load_s: float = 0.0,
        floor: int = 0,
    ) -> Entry[T]:
        """An answer, to be stored. Raises Uncacheable.

        Args:
            floor: the version up to which the key was removed, which is also that of there being nothing.
        """
        wall = self._wall()
        if value is None:
            fresh_until = wall + options.absent.total_seconds()
            return Entry(None, floor, ABSENT, fresh_until, fresh_until, loaded_at, load_s, (), b"")
        payload = self._codec.payload(key.kind, value)
        value = self._codec.value(key.kind, payload)  # what everybody will read
        kept_s = options.duration.total_seconds() - self._draw() * options.jitter.total_seconds()
        longer_s = max(options.stale, options.fail_safe).total_seconds()
        version, tags = key.kind.version(value), tuple(key.kind.tags(value))
        return Entry(value, version, 0, wall + kept_s, wall + kept_s + longer_s, loaded_at, load_s, tags, payload)

    def _from_far(self, entry: Entry[T], options: Options) -> Held[T]:
        now, wall = self._clock(), self._wall()
        expires = now + entry.fresh_until - wall
        fresh_until = min(expires, now + options.near.total_seconds())
        is_early = bool(options.early) and entry.load_s > 0
        is_shared = _has_hash(entry.value)
        return Held(
            value=entry.value if is_shared else None,
            payload=b"" if is_shared else entry.payload,
            size_bytes=len(entry.payload),
            is_shared=is_shared,
            is_absent=bool(entry.bits & ABSENT),
            version=entry.version,
            tags=entry.tags,
            fresh_until=fresh_until,
            expires=expires,
            stale_until=now + entry.stale_until - wall,
            early_from=min(fresh_until, expires - earliest(options.early, entry.load_s)) if is_early else fresh_until,
            loaded_at=entry.loaded_at,
            load_s=entry.load_s,
        )

    def _ttl_s(self, entry: Entry[Any]) -> float:
        """How long Redis keeps it. That there is nothing is also a floor, and is kept as long as one."""
        left_s = entry.stale_until - self._wall()
        return max(left_s, FLOOR.total_seconds()) if entry.bits & ABSENT else max(left_s, 0.001)


def _has_hash(value: object) -> bool:
    """Whether it cannot be changed, all of it: a tuple of lists has none."""
    try:
        hash(value)
    except TypeError:
        return False
    return True
