"""Products that are changed while app processes are asked for them: for how long each still gives out the old one.

A change gives a product a brand that nobody has ever had, so that an answer tells by itself whether it is old.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

import httpx
import pandas as pd
import psycopg

from showcase.caching import Kind
from showcase.caching.application.entry import Codec
from showcase.kernel.ids import new_uuid
from showcase.platform import redis
from showcase.platform.settings import Settings
from showcase.shop.application import Product
from workshop.stack.stack import ServerHandle
from workshop.wire import Wire

PAUSE_S = 0.001
LOOK_EVERY_S = 0.02
WITHIN_S = 20.0

Change = Callable[[int, str], object]
"""Gives a product another brand; it comes back when the writer knows that this is committed."""


class ByHand:
    """Changes products as a person with psql does: no part of the system has a say in it, or hears of it.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(url, connect_timeout=5, autocommit=True)

    def __call__(self, product_id: int, brand: str) -> None:
        """A `Change`."""
        self._db.execute("UPDATE products SET brand = %s WHERE product_id = %s", (brand, product_id))

    def close(self) -> None:
        """No more changes."""
        self._db.close()


@dataclass(frozen=True, slots=True)
class Processes:
    """App processes that cache products, and the Redis between them.

    Attributes:
        urls: of each process, by its name.
    """

    urls: Mapping[str, str]
    settings: Settings
    kind: Kind[Product]

    async def windows(self, product_ids: Sequence[int], change: Change, *, every_s: float = 0.03) -> pd.DataFrame:
        """Change products, one after the other, while each process is asked for all of them again and again.

        Args:
            every_s: between one change and the next.

        Returns one row a product and process: `product_id`, `process`, `brand` (the new one), `new_from` (Unix time:
            when the process was asked and gave the new answer, and never again the old one), `known_at` (when the
            writer was told that it has been committed), `was_old_after` (whether anybody who asked later than that
            got the old answer). Raises TimeoutError when the old answer does not go.
        """
        brands = {product_id: brand_for(product_id) for product_id in product_ids}
        looks: list[Look] = []
        known_at: dict[int, float] = {}
        async with self._asked() as ask:
            for name in self.urls:
                await ask(name, product_ids)  # so that each holds all of them
            asking = [asyncio.create_task(_keep_asking(ask, name, product_ids, looks)) for name in self.urls]
            try:
                for product_id, brand in brands.items():
                    await asyncio.to_thread(change, product_id, brand)
                    known_at[product_id] = time.time()
                    await asyncio.sleep(every_s)
                await _until(lambda: all(_are_new(looks, name, brands) for name in self.urls), asking)
            finally:
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
        return windows(looks, brands, known_at)

    async def comes_round(self, product_id: int, change: Change, *, within_s: float = WITHIN_S) -> bool:
        """Change a product that all processes hold. Does the old answer go, from all of them and from Redis?

        Args:
            within_s: how long to wait for it. Nothing else ends an answer so soon: they are kept for minutes.
        """
        brand = brand_for(product_id)
        async with self._asked() as ask, self._redis() as held:
            before = [(await ask(name, [product_id]))[product_id] for name in self.urls]
            await asyncio.to_thread(change, product_id, brand)
            if brand in before:
                raise AssertionError("nobody can have had that brand before")
            deadline_s = time.monotonic() + within_s
            while True:
                given = {(await ask(name, [product_id]))[product_id] for name in self.urls}
                if given == {brand} and await held(product_id) in (None, brand):
                    return True
                if time.monotonic() > deadline_s:
                    return False
                await asyncio.sleep(LOOK_EVERY_S)

    async def brands(self, product_ids: Sequence[int]) -> pd.DataFrame:
        """What each process gives out now: a row a product, a column a process."""
        async with self._asked() as ask:
            return pd.DataFrame({name: await ask(name, product_ids) for name in self.urls})

    async def settled(self, brands: Mapping[int, str]) -> pd.DataFrame:
        """What each process gives out, as `brands` has it, once it gives out these; what it is after a while."""
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            given = await self.brands(list(brands))
            if all(given[name].to_dict() == brands for name in given) or time.monotonic() > deadline_s:
                return given
            await asyncio.sleep(LOOK_EVERY_S)

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator["Ask"]:
        async with AsyncExitStack() as opened:
            clients = {
                name: await opened.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10))
                for name, url in self.urls.items()
            }

            async def ask(name: str, product_ids: Sequence[int]) -> dict[int, str]:
                answer = await clients[name].get("/products", params={"ids": ",".join(map(str, product_ids))})
                return {one["product_id"]: one["brand"] for one in answer.raise_for_status().json()}

            yield ask

    @asynccontextmanager
    async def _redis(self) -> AsyncIterator[Callable[[int], Any]]:
        """What Redis itself holds of a product: its brand, or None."""
        client = redis.connect(self.settings.url("redis_cache_url"), timeout_s=5.0, text=False)

        async def held(product_id: int) -> str | None:
            name = self.kind.key(product_id).name
            kept: Any = await client.get(f"{self.settings.redis_prefix}cache:{name}")
            entry = Codec().read(self.kind, name, kept) if kept else None
            return entry.value.brand if entry and entry.value else None

        try:
            yield held
        finally:
            await client.aclose()


Ask = Callable[[str, Sequence[int]], Any]
Look = tuple[str, float, Mapping[int, str]]
"""Who was asked, when (Unix time), and the brands in the answer."""


def brand_for(product_id: int) -> str:
    """A brand that nobody has ever had."""
    return f"brand {product_id} {new_uuid().hex[-12:]}"


def windows(looks: Sequence[Look], brands: Mapping[int, str], known_at: Mapping[int, float]) -> pd.DataFrame:
    """When each process had given out the old answer for the last time; see `Processes.windows`."""
    rows = []
    for name in dict.fromkeys(name for name, _, _ in looks):
        for product_id, brand in brands.items():
            given = [(at, answer[product_id] == brand) for who, at, answer in looks if who == name]
            last_old = max((at for at, is_new in given if not is_new), default=0.0)
            new_from = min(at for at, _ in given if at > last_old)
            known = known_at[product_id]
            rows.append((product_id, name, brand, new_from, known, last_old > known))
    columns = ["product_id", "process", "brand", "new_from", "known_at", "was_old_after"]
    return pd.DataFrame(rows, columns=columns)


def dies_after_commit(ask: Callable[[], object], is_committed: Callable[[], object], kill: Callable[[], None]) -> None:
    """A process is asked for a change, and killed when that is committed, before it has told anybody.

    Args:
        ask: hangs after the commit, since the process cannot get through to Redis. That its process is dead is all that
            it learns.

    Raises TimeoutError when nothing is committed.
    """

    def asked() -> None:
        with suppress(httpx.TransportError):
            ask()

    asking = Thread(target=asked, daemon=True)
    asking.start()
    deadline_s = time.monotonic() + WITHIN_S
    while not is_committed():
        if time.monotonic() > deadline_s:
            raise TimeoutError("nothing was committed")
        time.sleep(0.01)
    kill()
    asking.join(WITHIN_S)


def while_paused(change: Change, server: ServerHandle, *, for_s: float = 1.0) -> Change:
    """The same change, made while a server answers nothing."""

    def paused(product_id: int, brand: str) -> None:
        server.pause()
        ends_s = time.monotonic() + for_s
        try:
            change(product_id, brand)
            time.sleep(max(0.0, ends_s - time.monotonic()))
        finally:
            server.resume()

    return paused


def on_a_dead_line(change: Change, wire: Wire) -> Change:
    """The same change, after a process's line to the news has gone dead; it stays so until the wire is mended."""

    def dead(product_id: int, brand: str) -> None:
        wire.lose_news()
        change(product_id, brand)

    return dead


def brands_in(topic: pd.DataFrame) -> "pd.Series[str]":
    """The last brand of each product that has changed, by Debezium's records of it."""
    rows = [(one["after"]["product_id"], one["after"]["brand"]) for one in topic.value if one["after"]]
    last = pd.DataFrame(rows, columns=["product_id", "brand"]).drop_duplicates("product_id", keep="last")
    return last.set_index("product_id").brand


def slowest(found: Mapping[str, pd.DataFrame], topic: pd.DataFrame) -> pd.DataFrame:
    """How long after its commit, by the database's own log, each change was known to the last process.

    Args:
        found: what `Processes.windows` has found, under the name of each strategy.
        topic: all of Debezium's records.

    Returns one row a change: `what` (the strategy), `brand`, `ms`.
    """
    committed = _of_each(topic, lambda record: record["source"]["ts_us"])
    frames = []
    for what, frame in found.items():
        new_from = 1e6 * frame.groupby("brand", sort=False).new_from.max()
        ms = ((new_from - committed.reindex(new_from.index)) / 1000).clip(lower=0.0)
        frames.append(pd.DataFrame({"what": what, "brand": ms.index, "ms": ms.to_numpy()}))
    return pd.concat(frames, ignore_index=True)


def legs(frame: pd.DataFrame, topic: pd.DataFrame) -> pd.DataFrame:
    """Where the time goes between a commit and the last process.

    Args:
        frame: of the changes by one strategy, see `slowest`.

    Returns one row a change and leg: `what`, `ms` since the commit.
    """
    read = _of_each(topic, lambda record: (record["ts_us"] - record["source"]["ts_us"]) / 1000)
    of_debezium = pd.DataFrame({"what": "Debezium has read it", "ms": read.reindex(frame.brand).clip(lower=0.0)})
    return pd.concat([of_debezium, frame.assign(what="the last process knows")], ignore_index=True)[["what", "ms"]]


def _of_each(topic: pd.DataFrame, number: Callable[[Mapping[str, Any]], float]) -> "pd.Series[float]":
    """A number of each change, by the brand that it gave to its product."""
    return pd.Series({one["after"]["brand"]: number(one) for one in topic.value if one["after"]}, dtype=float)


async def _keep_asking(ask: Ask, name: str, product_ids: Sequence[int], looks: list[Look]) -> None:
    while True:
        at = time.time()  # as the database's log has it: it runs on this machine, or clocks are in step
        looks.append((name, at, await ask(name, product_ids)))
        await asyncio.sleep(PAUSE_S)


def _are_new(looks: Sequence[Look], name: str, brands: Mapping[int, str]) -> bool:
    """Whether the last answer of a process has nothing old in it."""
    return next((given == brands for who, _, given in reversed(looks) if who == name), False)


async def _until(condition: Callable[[], bool], tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Raises TimeoutError, and what ended one of the tasks."""
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        for task in tasks:
            if task.done():
                task.result()
        if time.monotonic() > deadline_s:
            raise TimeoutError("some process still gives out an old answer")
        await asyncio.sleep(LOOK_EVERY_S)
