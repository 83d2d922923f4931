"""What a slice hands to the composition: its routes, and what it does besides answering them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Something that goes up and down, as a monitoring system asks for it.

    Attributes:
        name: with its unit, as Prometheus advises: `showcase_outbox_oldest_seconds`. One that only goes up, and is a
            counter, ends with `_total`.
        values: by the value of the label.
    """

    name: str
    help: str
    label: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One pattern, built.

    Attributes:
        running: what goes on in the background of an app that serves the slice.
        drain: when the process is told to stop, before its connections are cut.
        prune: removes what the slice need not keep any longer, and tells how many rows of what.
        metrics: how the slice is doing, at a bounded cost; raises Unavailable.
    """

    name: str
    routers: "tuple[APIRouter, ...]" = ()
    running: Callable[[], AbstractAsyncContextManager[None]] | None = None
    drain: Callable[[], Awaitable[None]] | None = None
    prune: Callable[[], Awaitable[dict[str, int]]] | None = None
    metrics: Callable[[], Awaitable[Sequence[Gauge]]] | None = None
