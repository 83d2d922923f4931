"""How much one connection may do."""

import asyncio


class Allowance:
    """So many of something a second, and a burst (token bucket)."""

    def __init__(self, per_s: float, at_once: int) -> None:
        self._per_s, self._at_once = per_s, float(at_once)
        self._left = self._at_once
        self._at = asyncio.get_running_loop().time()

    def take(self, count: int = 1) -> bool:
        """Whether so many more are allowed; if not, none is taken."""
        now = asyncio.get_running_loop().time()
        self._left, self._at = min(self._at_once, self._left + (now - self._at) * self._per_s), now
        if self._left < count:
            return False
        self._left -= count
        return True
