"""Readers and writers of one product who meet at the worst moment: step by step, and by chance.

Each experiment takes a way to cache products (`Way`), and looks, after each step, into Redis and PostgreSQL itself.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pandas as pd
from redis.asyncio import Redis
from structlog.testing import capture_logs

from showcase.caching import Cache, Kind, Options
from showcase.caching.application import entry as entries
from showcase.caching.wiring import Caching
from showcase.kernel.ids import new_uuid
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.shop.application import Product, Products
from showcase.shop.domain import ProductId
from showcase.shop.infrastructure import SqlProducts
from workshop.naive.deleting import Aside, Meanwhile, nothing

WITHIN_S = 10.0
AT_ONCE = 5
"""Products in the race by chance. Each needs two database connections at the most."""


class Way(Protocol):
    """A way to cache products."""

    @property
    def redis(self) -> Redis:
        """Where they are kept."""

    async def read(self, product_id: int, meanwhile: Meanwhile = nothing) -> Product | None:
        """A product. `meanwhile` is awaited between the database and Redis."""

    async def store(self, product: Product) -> object:
        """Keep a product that somebody has just changed."""

    async def changed(self, product: Product) -> object:
        """A product was changed, and that is committed: what is kept is old."""

    async def in_redis(self, product_id: int) -> tuple[str, int]:
        """What is in Redis: `nothing`, or a `version` or a `floor`, and which."""


@dataclass(frozen=True, slots=True)
class Ours:
    """The cache of `showcase`, in two processes: one reads, the other one changes."""

    here: Cache
    there: Cache
    kind: Kind[Product]
    products: Products
    redis: Redis
    prefix: str
    options: Options = field(default_factory=Options)

    async def read(self, product_id: int, meanwhile: Meanwhile = nothing) -> Product | None:
        """As `Way` says."""

        async def load() -> Product | None:
            product = await self.products.find(ProductId(product_id))
            await meanwhile()
            return product

        return await self.here.get_or_set(self.kind.key(product_id), load, self.options)

    async def store(self, product: Product) -> bool:
        """As `Way` says."""
        return await self.there.set(self.kind.key(product.product_id), product, self.options)

    async def changed(self, product: Product) -> bool:
        """As `Way` says."""
        return await self.there.remove(self.kind.key(product.product_id), self.kind.version(product))

    async def in_redis(self, product_id: int) -> tuple[str, int]:
        """As `Way` says."""
        name = self.kind.key(product_id).name
        kept: Any = await self.redis.get(f"{self.prefix}cache:{name}")
        entry = entries.Codec().read(self.kind, name, kept) if kept else None
        if entry is None:
            return "nothing", 0
        return ("version", entry.value.version) if entry.value else ("floor", entry.version)


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways to compare, each with keys of its own.

    Attributes:
        naive: cache-aside; ours: the cache of `showcase`; leased: the same, where products have no versions.
    """

    naive: Aside
    ours: Ours
    leased: Ours
    products: Products


@asynccontextmanager
async def opened(settings: Settings, kind: Kind[Product], *, ttl_s: float = 1.0) -> AsyncIterator[Ways]:
    """All ways, with nothing in any cache.

    Args:
        ttl_s: how long the naive one keeps a product.
    """
    prefix = f"{settings.redis_prefix}races:{new_uuid().hex}:"
    settings = settings.model_copy(update={"cache_timeout_s": 5.0})  # a busy machine is no fault of Redis
    async with Resources(settings) as resources, AsyncExitStack() as running:
        running.enter_context(capture_logs())  # a notebook is no place for them
        products, redis = SqlProducts(resources.database), resources.redis_cache

        async def ours(name: str, kind: Kind[Product]) -> Ours:
            own = settings.model_copy(update={"redis_prefix": f"{prefix}{name}:"})
            here, there = [Caching(await running.enter_async_context(Resources(own))) for _ in range(2)]
            for process in (here, there):
                await running.enter_async_context(process.running())
            await until(lambda: here.cache.far.is_heard and there.cache.far.is_heard)
            return Ours(here.cache, there.cache, kind, products, redis, f"{prefix}{name}:")

        yield Ways(
            naive=Aside(redis, products, prefix, ttl_s),
            ours=await ours("ours", kind),
            leased=await ours("leased", Kind(kind.name, kind.type_)),
            products=products,
        )


async def slow_reader(way: Way, products: Products, product_id: int, *, redis_forgets: bool = False) -> pd.DataFrame:
    """A reader reads, and stops; a writer changes the product; the reader goes on. Who gets what afterwards?

    Args:
        redis_forgets: all that it holds, before the reader goes on; for a Redis of one's own.

    Returns one row a step: `who`, `does`, `redis`, `postgres`. The product's versions are numbered from 1.
    """
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def stops() -> None:
        has_read.set()
        await asyncio.wait_for(may_go_on.wait(), WITHIN_S)

    steps = Steps(way, products, product_id)
    await steps.begin()
    reader = asyncio.create_task(way.read(product_id, stops))
    await asyncio.wait_for(has_read.wait(), WITHIN_S)
    await steps.add("slow reader", lambda v: "reads version 1, and stops")
    changed = await change(products, product_id)
    await steps.add("writer", lambda v: "commits version 2")
    await way.changed(changed)
    await steps.add("writer", lambda v: "removes it from Redis")
    if redis_forgets:
        await way.redis.flushall()
        await steps.add("Redis", lambda v: "starts again, empty")
    may_go_on.set()
    got = await reader
    await steps.add("slow reader", lambda v: f"goes on, with version {v(got)}")
    got = await way.read(product_id)
    await steps.add("next reader", lambda v: f"gets version {v(got)}")
    return steps.frame()


async def slow_writer(way: Way, products: Products, product_id: int) -> pd.DataFrame:
    """Two writers put what they have written into the cache themselves; the first is the later one to do so.

    Returns as `slow_reader` does.
    """
    steps = Steps(way, products, product_id)
    await steps.begin()
    first = await change(products, product_id)
    await steps.add("slow writer", lambda v: "commits version 2, and stops")
    second = await change(products, product_id)
    await steps.add("fast writer", lambda v: "commits version 3")
    await way.store(second)
    await steps.add("fast writer", lambda v: "stores version 3")
    await way.store(first)
    await steps.add("slow writer", lambda v: "goes on, stores version 2")
    got = await way.read(product_id)
    await steps.add("next reader", lambda v: f"gets version {v(got)}")
    return steps.frame()


async def by_chance(
    way: Way, products: Products, product_ids: Sequence[int], *, slow_s: float = 0.02, seed: int = 7
) -> pd.DataFrame:
    """Each product is read by one and changed by another, at moments of chance. What do readers get when all is over?

    Args:
        slow_s: any pause is up to so long, also the one of a reader between the database and Redis.

    Returns one row a product: `product_id`, `postgres`, `reader` (the versions).
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    at_once = asyncio.Semaphore(AT_ONCE)

    async def pause() -> None:
        await asyncio.sleep(chance.uniform(0, slow_s))

    async def read(product_id: int) -> None:
        await pause()
        await way.read(product_id, pause)

    async def write(product_id: int) -> None:
        await pause()
        await way.changed(await change(products, product_id))

    async def meet(product_id: int) -> None:
        async with at_once:
            await asyncio.gather(read(product_id), write(product_id))

    await asyncio.gather(*map(meet, product_ids))
    rows = []
    for product_id in product_ids:
        got, there = await way.read(product_id), await products.find(ProductId(product_id))
        rows.append((product_id, there and there.version, got and got.version))
    return pd.DataFrame(rows, columns=["product_id", "postgres", "reader"])


async def stale_for(way: Way, products: Products, product_id: int) -> float:
    """For how many seconds from now on readers still get an older version than PostgreSQL has."""
    there = await products.find(ProductId(product_id))
    began_s = time.monotonic()

    async def is_new() -> bool:
        got = await way.read(product_id)
        return got == there

    while not await is_new():
        if time.monotonic() > began_s + WITHIN_S:
            raise TimeoutError(f"still the old version after {WITHIN_S:.0f} s")
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s


async def change(products: Products, product_id: int) -> Product:
    """Change a product, and commit: its brand gets another name."""
    changed = await products.change(ProductId(product_id), {"brand": f"brand {new_uuid().hex[-8:]}"})
    if changed is None:
        raise LookupError(f"there is no product {product_id}")
    return changed


async def until(condition: Callable[[], object]) -> None:
    """Wait for something. Raises TimeoutError."""
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("what this waits for did not happen")
        await asyncio.sleep(0.005)


class Steps:
    """What happened to one product, and what Redis and PostgreSQL held after each step."""

    def __init__(self, way: Way, products: Products, product_id: int) -> None:
        self._way, self._products, self._product_id = way, products, product_id
        self._versions: list[int] = []
        self._rows: list[tuple[str, str, str, str]] = []

    async def begin(self) -> None:
        """The version that PostgreSQL has now is number 1."""
        await self._look()

    async def add(self, who: str, does: Callable[[Callable[[Product | None], int]], str]) -> None:
        """Somebody has done something. `does` is given a function that numbers versions."""
        redis, postgres = await self._look()
        self._rows.append((who, does(lambda product: self._number(product.version if product else 0)), redis, postgres))

    def frame(self) -> pd.DataFrame:
        """All steps."""
        return pd.DataFrame(self._rows, columns=["who", "does", "redis", "postgres"])

    async def _look(self) -> tuple[str, str]:
        there = await self._products.find(ProductId(self._product_id))
        postgres = f"version {self._number(there.version if there else 0)}"
        what, version = await self._way.in_redis(self._product_id)
        if what == "version":
            return f"version {self._number(version)}", postgres
        if what == "floor" and version:
            return f"nothing below {self._number(version)}", postgres
        return "nothing", postgres

    def _number(self, version: int) -> int:
        if version not in self._versions:
            self._versions.append(version)
        return self._versions.index(version) + 1
