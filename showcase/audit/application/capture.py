"""Capturing changes: what an operator plans, applies and sees, and how a connector that fails is brought back.

A connector reads the log of one database and writes a topic a table. What it is to be is said by its source; what it is
now is asked of Kafka Connect, of Kafka and of the database. `plan` tells the difference, `apply` makes it none.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import structlog

from showcase.kernel.errors import Conflict, NotFound, Unavailable

log = structlog.get_logger()

RUNNING, FAILED, PAUSED, STOPPED = "RUNNING", "FAILED", "PAUSED", "STOPPED"
LOST = "lost"
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic.

    Attributes:
        kept: how long a record stays, at least; None for ever.
        max_bytes: of a partition; the oldest records go when there are more, however young. None: there is no limit.
    """

    name: str
    partitions: int
    kept: timedelta | None
    max_bytes: int | None = None

    @property
    def keeps(self) -> str:
        """For how long, in words."""
        limit = "" if self.max_bytes is None else f", {self.max_bytes:,} bytes a partition at the most"
        return f"kept {'for ever' if self.kept is None else str(self.kept).removesuffix(', 0:00:00')}{limit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A connector, or one of its tasks.

    Attributes:
        task: its number; None for the connector itself.
        state: RUNNING, FAILED, PAUSED, STOPPED, UNASSIGNED or RESTARTING.
        why: it failed, in one line.
        worker: address of the one that runs it.
    """

    task: int | None
    state: str
    why: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot: how far somebody has read PostgreSQL's log, and what is therefore kept of it.

    Attributes:
        wal_status: `reserved`; `extended` or `unreserved` when more is kept than the server would by itself; `lost`
            when what was not read is gone (PostgreSQL's manual, pg_replication_slots).
        lag_bytes: written by the database and not confirmed by the reader.
        lag_s: how old that is, about.
        kept_bytes: of log that cannot be removed before it is read.
    """

    name: str
    active: bool
    wal_status: str
    lag_bytes: int
    lag_s: float
    kept_bytes: int


class Source(Protocol):
    """A database whose changes are captured."""

    @property
    def connector(self) -> str:
        """What the connector is called."""

    @property
    def slot(self) -> str:
        """The replication slot; "" for a database that has none."""

    @property
    def audited(self) -> Sequence[str]:
        """The tables whose rows are needed as they were before a change; none for a database that always tells."""

    @property
    def topics(self) -> Sequence[Topic]: ...

    def config(self) -> dict[str, str]:
        """The connector's settings."""


class Connectors(Protocol):
    """Kafka Connect. Each call has a deadline; raises Unavailable."""

    async def config(self, name: str) -> Mapping[str, str] | None:
        """The settings of a connector; None if there is none."""

    async def status(self, name: str) -> Sequence[Part] | None:
        """The connector, then its tasks; None if there is none, or nobody has said yet."""

    async def check(self, name: str, config: Mapping[str, str]) -> Sequence[str]:
        """What the connector itself finds wrong in some settings, a line each."""

    async def put(self, name: str, config: Mapping[str, str]) -> None:
        """Make a connector, or change it."""

    async def stop(self, name: str) -> None:
        """End its tasks; settings and place in the log stay."""

    async def pause(self, name: str) -> None: ...

    async def resume(self, name: str) -> None: ...

    async def restart(self, name: str) -> None:
        """Start again what of it has failed."""


class Topics(Protocol):
    """Kafka. Each call has a deadline; raises Unavailable."""

    async def find(self, names: Sequence[str]) -> Mapping[str, Topic]:
        """Those that there are."""

    async def make(self, topics: Sequence[Topic]) -> None:
        """Harmless for those that exist."""

    async def change(self, now: Topic, then: Topic) -> None:
        """Give it more partitions, keep its records for another time."""


class Captured(Protocol):
    """The database whose changes are captured. Raises Unavailable."""

    async def identities(self, tables: Sequence[str]) -> Mapping[str, bool]:
        """Those tables that there are; whether each tells rows as they were (REPLICA IDENTITY FULL)."""

    async def slot(self, name: str) -> Slot | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, a line each.

    Attributes:
        refused: what stands in the way, and what to do about it.
    """

    connector: Sequence[str] = ()
    topics: Sequence[str] = ()
    refused: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.connector or self.topics or self.refused)


class Refused(Conflict):
    """It cannot be applied as it is."""


class CaptureFailed(Conflict):
    """The connector does not run."""


class NoConnector(NotFound):
    """It was not applied yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One source, and what captures its changes.

    Attributes:
        within_s: how long a connector may take until it runs.
    """

    source: Source
    connectors: Connectors
    topics: Topics
    database: Captured
    within_s: float = 60.0

    async def plan(self) -> Plan:
        """What `apply` would do. Changes nothing. Raises Unavailable."""
        name, wanted = self.source.connector, self.source.config()
        config = await self.connectors.config(name)
        found = await self.topics.find([topic.name for topic in self.source.topics])
        pairs = [(found.get(topic.name), topic) for topic in self.source.topics]
        head = f"connector {name}: {'new' if config is None else 'to change'}"
        return Plan(
            connector=[head, *_settings(config or {}, wanted)] if config != wanted else (),
            topics=[line for now, then in pairs if (line := _topic(now, then))],
            refused=[*await self._tables_refused(), *_fewer(pairs)],
        )

    async def apply(self) -> Plan:
        """Make it so, and wait until the connector runs; what was done. Safe to repeat, also after a crash half-way.

        A connector that was paused or stopped gets its new settings and stays so.

        Raises Refused before anything is changed, CaptureFailed with what keeps it from running, Unavailable.
        """
        plan = await self.plan()
        if plan.refused:
            raise Refused("; ".join(plan.refused))
        name, config = self.source.connector, self.source.config()
        if wrong := await self.connectors.check(name, config):
            raise Refused("\n  ".join((f"Kafka Connect refuses the settings of {name}:", *wrong)))
        found = await self.topics.find([topic.name for topic in self.source.topics])
        # Before the connector: it does not make them as they are to be, and a consumer waits long for one to appear.
        await self.topics.make([topic for topic in self.source.topics if topic.name not in found])
        for topic in self.source.topics:
            if topic.name in found and _topic(found[topic.name], topic):
                await self.topics.change(found[topic.name], topic)
        parts = await self.connectors.status(name)
        is_held = parts is not None and parts[0].state in (PAUSED, STOPPED)
        if plan.connector:
            if parts and not is_held:
                await self._stopped()  # or its old status would pass for that of the new settings
            await self.connectors.put(name, config)
            if parts and not is_held:
                await self.connectors.resume(name)
        if not is_held:
            await self._running()
        return plan

    async def status(self) -> tuple[Sequence[Part], Slot | None]:
        """The connector and its tasks; its slot. Raises NoConnector, Unavailable."""
        parts = await self.connectors.status(self.source.connector)
        if parts is None:
            raise NoConnector(f"there is no connector {self.source.connector}: `showcase audit connectors apply`")
        return parts, await self.slot()

    async def slot(self) -> Slot | None:
        """None also for a source that has none. Raises Unavailable."""
        return await self.database.slot(self.source.slot) if self.source.slot else None

    async def pause(self) -> None:
        """Capture nothing until `resume`; the database keeps its log as long. Raises NoConnector, Unavailable."""
        await self.status()
        await self.connectors.pause(self.source.connector)

    async def resume(self) -> None:
        """Raises NoConnector, CaptureFailed, Unavailable."""
        await self.status()
        await self.connectors.resume(self.source.connector)
        await self._running()

    async def restart(self) -> Sequence[Part]:
        """Start again what has failed; what that was. Raises NoConnector, Unavailable."""
        parts, _ = await self.status()
        failed = [part for part in parts if part.state == FAILED]
        if failed:
            await self.connectors.restart(self.source.connector)
        return failed

    async def _tables_refused(self) -> list[str]:
        found = await self.database.identities(self.source.audited) if self.source.audited else {}
        missing = [table for table in self.source.audited if table not in found]
        return [
            *(f"there is no table {table} to audit: `showcase migrate`" for table in missing),
            *(
                f"{table} does not tell rows as they were: ALTER TABLE {table} REPLICA IDENTITY FULL"
                for table, is_full in found.items()
                if not is_full
            ),
        ]

    async def _stopped(self) -> None:
        name = self.source.connector
        await self.connectors.stop(name)
        await self._until(lambda parts: len(parts) == 1 and parts[0].state == STOPPED, f"{name} does not stop")

    async def _running(self) -> None:
        """Raises CaptureFailed as soon as something has failed."""
        name = self.source.connector

        def runs(parts: Sequence[Part]) -> bool:
            for part in parts:
                if part.state == FAILED:
                    raise CaptureFailed(f"{named(name, part)} has failed: {part.why}")
            return len(parts) > 1 and all(part.state == RUNNING for part in parts)

        await self._until(runs, f"{name} does not run: `showcase audit connectors status`")

    async def _until(self, is_so: Callable[[Sequence[Part]], bool], what: str) -> None:
        try:
            async with asyncio.timeout(self.within_s):
                # What it waits for lies in a server, which sets no event.
                while not is_so(await self.connectors.status(self.source.connector) or ()):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise CaptureFailed(f"after {self.within_s:g} s {what}") from error


def named(connector: str, part: Part) -> str:
    """What a part is called: `shop`, or `shop/0` for a task."""
    return connector if part.task is None else f"{connector}/{part.task}"


def _settings(now: Mapping[str, str], then: Mapping[str, str]) -> list[str]:
    lines = []
    for key in sorted(now.keys() | then.keys()):
        if key not in then:
            lines.append(f"  - {key} = {now[key]}")
        elif key not in now:
            lines.append(f"  + {key} = {then[key]}")
        elif now[key] != then[key]:
            lines.append(f"  ~ {key} = {now[key]} → {then[key]}")
    return lines


def _topic(now: Topic | None, then: Topic) -> str:
    """What is to be done to a topic; "" for nothing."""
    if now is None:
        return f"topic {then.name}: new, {then.partitions} partition{'s'[: then.partitions != 1]}, {then.keeps}"
    differences = []
    if now.partitions < then.partitions:
        differences.append(f"{now.partitions} → {then.partitions} partitions")
    if now.keeps != then.keeps:
        differences.append(f"{now.keeps} → {then.keeps}")
    return f"topic {then.name}: {', '.join(differences)}" if differences else ""


def _fewer(pairs: Sequence[tuple[Topic | None, Topic]]) -> list[str]:
    """What is wrong with topics that have more partitions than they are to have."""
    too_many = [
        f"{then.name} has {now.partitions}, not {then.partitions}"
        for now, then in pairs
        if now is not None and now.partitions > then.partitions
    ]
    return [f"partitions grow only: {', '.join(too_many)}"] if too_many else []


@dataclass(slots=True)
class _Ailing:
    """A part that has failed.

    Attributes:
        pause_s: how long the next restart waits, about.
        due_at: when it is restarted; None while it is thought to run.
        well_since: since when it has been seen to run.
    """

    pause_s: float
    due_at: float | None = None
    well_since: float | None = None


def jittered(pause_s: float) -> float:
    """About so long: two that failed together do not come back together."""
    return pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Brings back what has failed, after growing pauses. What no restart can mend it tells, and leaves alone.

    Attributes:
        clock: seconds that only go up.
        longest_s: no pause is longer, about.
        steady_s: what has run so long is well again: its next pause is the first.
        restarts: how many there were.
    """

    capture: Capture
    clock: Callable[[], float]
    jitter: Callable[[float], float] = jittered
    first_s: float = 1.0
    longest_s: float = 60.0
    steady_s: float = 300.0
    restarts: int = 0
    _ailing: dict[int | None, _Ailing] = field(default_factory=dict)
    _slot: Slot | None = None
    _told: set[str] = field(default_factory=set)

    async def look(self) -> None:
        """Look once, and restart what is due. Raises Unavailable when Kafka Connect does not answer."""
        name = self.capture.source.connector
        parts = await self.capture.connectors.status(name)
        self._tell_once("there is no connector", parts is None, remedy="showcase audit connectors apply")
        lost = await self._slot_is_lost()
        due = False
        for part in parts or ():
            if part.state == RUNNING:
                self._is_well(part)
            elif part.state == FAILED:
                due = self._is_due(part, lost=lost) or due
        if due:
            self.restarts += 1
            await self.capture.connectors.restart(name)

    def _is_well(self, part: Part) -> None:
        if (ailing := self._ailing.get(part.task)) is None:
            return
        now = self.clock()
        if ailing.due_at is not None or ailing.well_since is None:
            ailing.due_at, ailing.well_since = None, now
            log.info("runs again", part=named(self.capture.source.connector, part))
        if now - ailing.well_since >= self.steady_s:
            del self._ailing[part.task]

    def _is_due(self, part: Part, *, lost: bool) -> bool:
        """Whether a part that has failed is to be restarted now."""
        if lost:
            return False
        ailing, now = self._ailing.setdefault(part.task, _Ailing(self.first_s)), self.clock()
        if ailing.due_at is None:
            pause_s = self.jitter(ailing.pause_s)
            ailing.due_at, ailing.well_since = now + pause_s, None
            what = named(self.capture.source.connector, part)
            log.error("has failed", part=what, why=part.why, restart_in_s=round(pause_s, 1))
            return False
        if now < ailing.due_at:
            return False
        ailing.due_at, ailing.pause_s = None, min(self.longest_s, 2 * ailing.pause_s)
        log.warning("restarted", part=named(self.capture.source.connector, part), why=part.why)
        return True

    async def _slot_is_lost(self) -> bool:
        """Whether changes are gone that were not read. A database that does not answer keeps no restart back."""
        try:
            slot = await self.capture.slot()
        except Unavailable as error:
            self._tell_once("the database does not say how its slot is", True, why=error.detail)
            return self._slot is not None and self._slot.wal_status == LOST
        self._tell_once("the database does not say how its slot is", False)
        is_gone = slot is None and self._slot is not None
        if not is_gone:
            self._slot = slot
        is_lost = is_gone or (slot is not None and slot.wal_status == LOST)
        self._tell_once(
            "the replication slot is lost: changes were not captured, and no restart brings them back",
            is_lost,
            slot=self.capture.source.slot,
            remedy="a new slot with a new snapshot: docs/capture.md, “When the slot is lost”",
        )
        return is_lost

    def _tell_once(self, what: str, is_so: bool, **more: str) -> None:
        if not is_so:
            self._told.discard(what)
        elif what not in self._told:
            self._told.add(what)
            log.error(what, connector=self.capture.source.connector, **more)
