"""Anchoring: from time to time, where the chains of seals stand is signed and kept outside of their store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from showcase.audit.domain.anchors import Anchor, Head, Signed, following
from showcase.kernel.clock import Clock, system_clock

log = structlog.get_logger()

COPIED_AT_ONCE = 1_000


class BrokenAnchor(RuntimeError):
    """The last anchor is not ours: somebody else has written one. `audit verify` shows more."""


class Heads(Protocol):
    """Where the chains of seals stand. Raises Unavailable."""

    async def newest(self) -> Sequence[Head]:
        """The newest seal of each partition, by topic and partition."""


class Anchors(Protocol):
    """Keeps anchors for good, in the order of their numbers. Raises Unavailable."""

    def alone(self) -> AbstractAsyncContextManager[None]:
        """Within it nobody else adds one."""

    async def last(self) -> Signed | None: ...

    async def add(self, signed: Signed) -> None: ...

    def after(self, number: int = 0) -> AsyncIterator[Signed]:
        """Those of greater numbers, in their order, and any that are none."""


class Copy(Protocol):
    """A second place for anchors, which somebody else can take away with him."""

    async def end(self) -> int:
        """The number of its last anchor; 0 if it has none."""

    async def append(self, some: Sequence[Signed]) -> None:
        """When it returns they survive a crash."""


Sign = Callable[[str], Signed]
Check = Callable[[Signed], bool]
"""Whether a signature is by one of our keys."""


class Anchoring:
    """Makes anchors; any number of processes may, one after the other."""

    def __init__(
        self,
        heads: Heads,
        anchors: Anchors,
        copy: Copy | None,
        sign: Sign,
        check: Check,
        clock: Clock = system_clock,
    ) -> None:
        self._heads = heads
        self._anchors = anchors
        self._copy = copy
        self._sign = sign
        self._check = check
        self._clock = clock

    async def anchor(self) -> Anchor | None:
        """Anchor what was sealed since the last time; None if nothing was. Raises BrokenAnchor, Unavailable."""
        async with self._anchors.alone():
            last = await self._anchors.last()
            made = self._following(last, await self._heads.newest())
            if made is not None:
                await self._anchors.add(self._sign(made.statement))
        if self._copy is not None:
            await self._catch_up(self._copy)
        return made

    def _following(self, last: Signed | None, newest: Sequence[Head]) -> Anchor | None:
        if last is not None and not self._check(last):
            raise BrokenAnchor(f"the last anchor is signed by {last.key_id}, and not by a key of ours")
        try:
            made, gone = following(last, self._clock(), newest)
        except ValueError as error:
            raise BrokenAnchor(str(error)) from error
        for head in gone:
            log.error("a seal that was anchored is gone", seal=head.seal_id, next=head.next)
        is_new = made.heads != (Anchor.of(last.statement).heads if last else ())
        return made if is_new else None

    async def _catch_up(self, copy: Copy) -> None:
        """Append what the copy lacks: also what a crash has kept from it, and what other processes have made."""
        some: list[Signed] = []
        async for signed in self._anchors.after(await copy.end()):
            some.append(signed)
            if len(some) == COPIED_AT_ONCE:
                await copy.append(some)
                some = []
        if some:
            await copy.append(some)
