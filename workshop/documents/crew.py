"""Processes of a lesson's own, which begin together and can be killed; they end with whoever started them.

As in `naive.killing`: a plain fork would copy a notebook's threads and locks, so a small server forks instead.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

WITHIN_S = 240.0
ENDS_WITHIN_S = 30.0
_PROCESSES = get_context("forkserver")

Ready = Callable[[], Awaitable[None]]
Work = Callable[..., Coroutine[Any, Any, Any]]
"""Called with `ready`, to be awaited before it begins, and with a member's arguments; what it returns is sent home."""


class Crew:
    """Some processes that do the same work, each with arguments of its own.

        with Crew(work, [("left",), ("right",)]) as crew: …
        crew.results

    The block begins when all of them begin, and ends when all of them have.

    Args:
        work: a coroutine function of a module.
    """

    def __init__(self, work: Work, members: Sequence[tuple[Any, ...]]) -> None:
        _PROCESSES.set_forkserver_preload(
            ["workshop.documents.racing", "workshop.documents.following", "workshop.documents.counting"]
        )
        self._ours: list[Connection[Any, Any]] = []
        self._processes = []
        self.results: list[Any] = []
        for arguments in members:
            ours, theirs = _PROCESSES.Pipe()
            process = _PROCESSES.Process(target=_member, args=(work, arguments, theirs), daemon=True)
            process.start()
            theirs.close()
            self._ours.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        for ours in self._ours:
            _received(ours)
        for ours in self._ours:
            ours.send("go")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.results += [_received(ours) for ours in self._ours]
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to each, and wait until it is gone; harmless when it is."""
        for process, ours in zip(self._processes, self._ours, strict=True):
            process.kill()
            process.join(ENDS_WITHIN_S)
            ours.close()


def _received(ours: "Connection[Any, Any]") -> Any:
    """What a process says. Raises RuntimeError when it says nothing in time, or that it has failed."""
    if not ours.poll(WITHIN_S):
        raise RuntimeError(f"a process has said nothing for {WITHIN_S:g} s")
    try:
        said = ours.recv()
    except (EOFError, ConnectionResetError) as error:
        raise RuntimeError("a process has ended without a word") from error
    if isinstance(said, BaseException):
        raise RuntimeError(f"a process has failed: {type(said).__name__}: {said}") from said
    return said


def _member(work: Work, arguments: tuple[Any, ...], theirs: "Connection[Any, Any]") -> None:
    """One process."""

    async def ready() -> None:
        theirs.send("ready")
        theirs.recv()
        threading.Thread(target=_ends_with_parent, args=(theirs,), daemon=True).start()

    try:
        result: Any = asyncio.run(work(ready, *arguments))
    except Exception as error:
        result = RuntimeError(f"{type(error).__name__}: {error}")  # whatever it was, this can be sent
    theirs.send(result)
    theirs.close()
    os._exit(0)  # the thread that listens is in the middle of that


def _ends_with_parent(theirs: "Connection[Any, Any]") -> None:
    try:
        theirs.recv()
    except (EOFError, OSError):
        os._exit(1)
