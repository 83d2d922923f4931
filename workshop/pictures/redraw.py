"""A picture in a notebook that is drawn again while an experiment runs, and stays as it was last."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

from workshop.pictures.style import Picture

SHORTEST_S = 0.25
"""No more than four redraws a second; and at most a quarter of the time goes into drawing."""


class Live:
    """Shows a picture under one display id. Outside a notebook it draws nothing and does no harm.

        async with live(meter.frame):
            await experiment()

    Inside the block the picture is drawn again by itself: drawn in a thread, so that what is measured on
    the event loop is not held up, and shown from the event loop. In code that is not async, call `update`.
    """

    def __init__(self, picture_of: Callable[[], Picture]) -> None:
        self._picture_of = picture_of
        self._display_id = uuid4().hex
        self._shown: Picture | None = None
        self._next_s = 0.0
        self._redrawing: asyncio.Task[None] | None = None

    def update(self) -> None:
        """Draw and show it now, unless that was done a moment ago."""
        if _in_notebook() and time.monotonic() >= self._next_s:
            self.finish()

    def finish(self) -> None:
        """Draw and show it as it is at last, however short ago it was shown."""
        if _in_notebook():
            began = time.monotonic()
            self._show(self._picture_of())
            self._rest_since(began)

    async def __aenter__(self) -> Self:
        if _in_notebook():
            self.finish()  # the picture's place in the output is above what the block prints
            self._redrawing = asyncio.create_task(self._redraw())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._redrawing is None:
            return
        self._redrawing.cancel()
        failures = await asyncio.gather(self._redrawing, return_exceptions=True)
        self._redrawing = None
        if error is not None:
            with suppress(Exception):  # what ended the block is what a person must see
                self.finish()
            return
        for failure in failures:
            if isinstance(failure, Exception):
                raise failure
        self.finish()

    async def _redraw(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
            began = time.monotonic()
            self._show(await asyncio.to_thread(self._picture_of))
            self._rest_since(began)

    def _rest_since(self, began: float) -> None:
        took = time.monotonic() - began
        self._next_s = began + max(SHORTEST_S, 4 * took)

    def _show(self, picture: Picture) -> None:
        from IPython.display import display  # a tenth of a second that a server process need not spend

        if picture == self._shown:
            return
        display(picture, display_id=self._display_id, update=self._shown is not None)
        self._shown = picture


def live(picture_of: Callable[[], Picture]) -> Live:
    """A picture that is drawn again while an experiment runs."""
    return Live(picture_of)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return hasattr(shell, "kernel")
