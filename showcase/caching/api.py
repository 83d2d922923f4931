"""What an operator sees of the cache of one process, and removes from those of all."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from showcase.caching.application.cache import Cache
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal, Scope
from showcase.platform.slices import Gauge
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.problems import documented


class CountsModel(BaseModel):
    """What happened so far in the process that answers. Each read is counted once: near, far, miss or stale."""

    near: int = Field(description="answers from its memory")
    far: int = Field(description="answers from Redis")
    misses: int = Field(description="answers from the source")
    stale: int = Field(description="old answers, since nothing newer was to be had in time")
    absent: int = Field(description="of all of these, how many said that there is nothing")
    loads: int = Field(description="calls of the source, which readers share")
    failed_loads: int
    load_s: float = Field(description="how long they took together")
    early: int = Field(description="refreshes before an answer had expired")
    waits: int = Field(description="loads that waited for another process's")
    refused: int = Field(description="loads that were not stored, since something newer was")
    far_failures: int = Field(description="calls that Redis did not answer")
    broken: int = Field(description="entries of Redis that could not be read")
    heard: int = Field(description="news of other processes' changes")
    lost: int = Field(description="how often news may have been missed")


class CacheModel(BaseModel):
    """The cache of the process that answers."""

    counts: CountsModel
    near_entries: int = Field(description="answers in its memory")
    near_bytes: int = Field(description="about what they take")
    owed: int = Field(description="changes that Redis has not heard of yet")
    is_heard: bool = Field(description="whether news of other processes' changes comes")


Operator = Annotated[Principal, require(Scope.SUPPORT)]


def routes(cache: Cache) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["caching"])
    refusals = documented(MissingToken, MissingScope, Unavailable)

    @router.get("/caching", responses=documented(MissingToken, MissingScope))
    async def caching(caller: Operator) -> CacheModel:
        """How the cache of this process is doing."""
        return CacheModel(
            counts=CountsModel(**asdict(cache.counts)),
            near_entries=len(cache.near),
            near_bytes=cache.near.size_bytes,
            owed=cache.far.owed,
            is_heard=cache.far.is_heard,
        )

    @router.delete("/caching", status_code=204, responses=refusals)
    async def clear(caller: Operator) -> None:
        """Remove every answer, in all processes. 503 while Redis is away; it is told as soon as it is back."""
        _told(await cache.clear())

    @router.delete("/caching/tags/{tag}", status_code=204, responses=refusals)
    async def remove_by_tag(tag: Annotated[str, Path(min_length=1, max_length=200)], caller: Operator) -> None:
        """Remove all answers with a tag, in all processes. 503 while Redis is away, as above."""
        _told(await cache.remove_by_tag(tag))

    return router


def gauges(cache: Cache) -> Sequence[Gauge]:
    """How the cache of this process is doing."""
    counts = cache.counts
    reads = {name: float(getattr(counts, name)) for name in ("near", "far", "misses", "stale")}
    events = ("loads", "failed_loads", "early", "waits", "refused", "far_failures", "broken", "heard", "lost")
    happened = {name: float(getattr(counts, name)) for name in events}
    state = {"entries": len(cache.near), "bytes": cache.near.size_bytes, "owed": cache.far.owed}
    return [
        Gauge(name="showcase_cache_reads_total", help="Answers by where they came from.", label="source", values=reads),
        Gauge(name="showcase_cache_events_total", help="What happened besides.", label="event", values=happened),
        Gauge(
            name="showcase_cache_load_seconds_total",
            help="Time that loads took.",
            label="cache",
            values={"products": counts.load_s},
        ),
        Gauge(
            name="showcase_cache_state",
            help="What is held in memory, and what Redis is owed.",
            label="what",
            values=state,
        ),
    ]


def _told(is_told: bool) -> None:
    if not is_told:
        raise Unavailable("redis does not answer; it will be told as soon as it does")
