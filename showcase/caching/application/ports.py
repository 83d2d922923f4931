"""What the cache needs of the world."""

from collections.abc import Sequence
from typing import Protocol


class Store(Protocol):
    """The second level, which all processes share. It may lose anything at any time.

    Each call ends within its deadline; all raise Unavailable. What tells other processes does so in the same step as
    it changes the store; a process never hears of its own changes.
    """

    async def read(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """The entries of some keys; None where there is none, or something that is no text of ours."""

    async def lease(self, names: Sequence[str], holder: str, ttl_s: float) -> tuple[float, Sequence[bool]]:
        """Take the right to load some keys, for `ttl_s`, where nobody has it (Scaling Memcache at Facebook, NSDI'13).

        Returns the store's time in seconds, and for each key whether it was given.
        """

    async def release(self, names: Sequence[str], holder: str) -> None:
        """Give back what `holder` still has of these leases."""

    async def write(self, name: str, entry: bytes, *, ttl_s: float, holder: str | None = None, tell: bool) -> bool:
        """Store an entry, unless what is there is newer (`entry.beats`); the lease is given back.

        Args:
            entry: its head says its version, see the module `entry`.
            holder: stored only while this one has the lease; None needs none.
            tell: the other processes, that what they have may be old.
        """

    async def remove(self, name: str, entry: bytes, *, ttl_s: float) -> None:
        """Put a floor in place of an older entry, take the lease away, and tell the other processes.

        An entry that is as new as the floor demands stays, and so does a higher floor; the others are told in any case.

        Args:
            entry: a floor (`entry.floor`).
        """

    async def expire(self, name: str) -> None:
        """Make an entry stale that is there, take the lease away, and tell the other processes."""

    async def cut(self, tag: str) -> float:
        """No entry with a tag is valid that was loaded up to now. Tells, and returns the store's time."""

    async def cuts(self, tags: Sequence[str]) -> Sequence[float]:
        """When each tag was cut last, by the store's time.

        A store that has lost its cuts says for each tag that it was cut when that happened, so that an entry never
        becomes valid again. It has begun to remember before it gives its first lease.
        """


class Listener(Protocol):
    """Whoever wants to hear what other processes have changed. Nothing here blocks, or raises."""

    def heard_removed(self, name: str, version: int, is_gone: bool) -> None:
        """What is older than `version` is no longer valid; `is_gone`: nor what is of that version. 0: nothing is."""

    def heard_expired(self, name: str) -> None:
        """It is stale now."""

    def heard_cut(self, tag: str, at: float) -> None:
        """What has the tag, and was loaded before, is no longer valid; the tag "" is everything's."""

    def trusted(self, until: float) -> None:
        """Until then (`time.monotonic`, seconds) all news of more than a moment ago has been heard."""

    def lost(self) -> None:
        """News may have been missed since."""
