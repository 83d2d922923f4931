"""What a slice hands to the composition: its routes, and what it does besides answering them."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One pattern, built.

    Attributes:
        running: what goes on in the background of an app that serves the slice.
        prune: removes what the slice need not keep any longer, and tells how many rows of what.
    """

    name: str
    routers: "tuple[APIRouter, ...]" = ()
    running: Callable[[], AbstractAsyncContextManager[None]] | None = None
    prune: Callable[[], Awaitable[dict[str, int]]] | None = None
