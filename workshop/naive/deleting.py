"""Cache-aside with the usual invalidation: whoever changes a product deletes it from Redis after the commit.

Nothing here is wrong on any single line.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis

from showcase.shop.application import Product, Products
from showcase.shop.domain import ProductId

Meanwhile = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """What happens between two lines, as long as nobody looks."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Products, kept in Redis.

    Attributes:
        prefix: of its keys.
        ttl_s: how long a product is kept.
    """

    redis: Redis
    products: Products
    prefix: str
    ttl_s: float

    async def read(self, product_id: int, meanwhile: Meanwhile = nothing) -> Product | None:
        """A product. `meanwhile` is what this reader does between the database and Redis: a pause of its process."""
        kept: Any = await self.redis.get(self.key(product_id))
        if kept is not None:
            return msgspec.json.decode(kept, type=Product)
        product = await self.products.find(ProductId(product_id))
        await meanwhile()
        if product is not None:
            await self.store(product)
        return product

    async def changed(self, product: Product) -> None:
        """A product was changed, and that is committed."""
        await self.redis.delete(self.key(product.product_id))

    async def store(self, product: Product) -> None:
        """Keep a product."""
        await self.redis.set(self.key(product.product_id), msgspec.json.encode(product), px=round(self.ttl_s * 1000))

    async def in_redis(self, product_id: int) -> tuple[str, int]:
        """What a look into Redis itself finds: `nothing`, or a `version`, and which."""
        kept: Any = await self.redis.get(self.key(product_id))
        return ("nothing", 0) if kept is None else ("version", msgspec.json.decode(kept, type=Product).version)

    def key(self, product_id: int) -> str:
        """Where a product is."""
        return f"{self.prefix}naive:{product_id}"
