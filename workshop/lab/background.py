"""An event loop in a thread: a notebook's own is busy running the notebook."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
REDRAWN_EVERY_S = 0.25


class Background:
    """Runs coroutines beside the notebook. Nothing in it prints: only the cell that waits does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin something and go on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], meanwhile: Callable[[], None] = lambda: None) -> T:
        """Wait for something; the stop button cancels it.

        Args:
            meanwhile: called now and then, in the caller's own thread, and once at the end.
        """
        future = self.start(work)
        try:
            while True:
                try:
                    result = future.result(REDRAWN_EVERY_S)
                except NotYet:
                    if future.done():  # its own error, not ours
                        raise
                    meanwhile()
                else:
                    meanwhile()
                    return result
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End what still runs."""

        async def cancel() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5) if tasks else None

        self.start(cancel()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Beside(ABC):
    """Something that goes on beside the notebook while a block runs. Told to stop at its end, it is waited for.

    What it raised is raised then, unless the block itself has failed. Raises TimeoutError when it takes too long.
    """

    ends_within_s: float

    def __enter__(self) -> Self:
        self._background = Background()
        self._stop = asyncio.Event()
        self._going_on = self._background.start(self._go_on())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._background.run(self._end())
            if error is None:
                self._going_on.result(self.ends_within_s)
        finally:
            self._background.close()

    @abstractmethod
    async def _go_on(self) -> None:
        """Until `_stop` is set."""

    async def _end(self) -> None:
        self._stop.set()
