"""Where everything is plugged together: the only module that knows all slices.

What one slice needs of another it asks for as a port; here each port gets its plug. A slice is imported by the
function that builds it: a payment worker starts without loading a web framework and three drivers that it never uses.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import TypeAdapter

import showcase.messaging.wiring as messaging
from showcase.caching import Cache, Kind
from showcase.messaging.application import Handle
from showcase.messaging.domain import Queue, Topology
from showcase.messaging.infrastructure.outbox import SqlInbox, SqlOutbox
from showcase.platform.resources import Resources
from showcase.platform.settings import Misconfigured, Settings
from showcase.platform.slices import Slice
from showcase.platform.worker import Work
from showcase.services import notice, payment, stock
from showcase.shop.application import STEPS, Product, Products, Shop
from showcase.shop.domain import OrderId, ProductId
from showcase.shop.infrastructure import SqlHouseholds, SqlOrders, SqlProducts

if TYPE_CHECKING:
    from showcase.auth.wiring import Auth

SLICES = ("auth", "shop", "audit", "realtime")
AUDITED = ("public.orders", "public.order_lines", "payment.charges", "auth.events")

TOPOLOGY = Topology(
    [
        Queue(name="payment", types=payment.TAKES),
        Queue(name="stock", types=stock.TAKES),
        Queue(name="notice", types=notice.TAKES),
        Queue(name="shop", types=tuple(STEPS)),
        Queue(name="realtime", types=("shop.order.#",)),
    ]
)
OUTBOXES = ("public", payment.SCHEMA, stock.SCHEMA)


def build_auth(resources: Resources) -> "Auth":
    """Authentication, which every app needs."""
    import showcase.auth.wiring as auth

    return auth.build(resources, SqlHouseholds(resources.database).add)


def build_slices(resources: Resources, auth: "Auth", names: Sequence[str] = SLICES) -> list[Slice]:
    """The slices of an app. Raises Misconfigured for a name that is none."""
    import showcase.audit.wiring as audit
    import showcase.caching.wiring as caching
    import showcase.realtime.wiring as realtime
    import showcase.shop.wiring as shop

    built: Mapping[str, Callable[[], Slice]] = {
        "auth": auth.doors,
        "shop": lambda: shop.build(resources, _shop(resources, caching.build(resources))),
        "audit": lambda: audit.build(resources),
        "realtime": lambda: realtime.build(resources, _owner_of(resources), auth.denylist.on_denied),
    }
    if unknown := sorted(set(names) - set(built)):
        raise Misconfigured(f"there is no slice {', '.join(unknown)}, only {', '.join(built)}")
    return [auth.background, *(built[name]() for name in names)]


def build_worker(resources: Resources, name: str) -> Work:
    """What a background process does. Raises Misconfigured for a name that is none."""
    if name == "relay":
        return messaging.relaying(resources, TOPOLOGY, OUTBOXES)
    if name == "audit":
        import showcase.audit.wiring as audit

        return audit.work(resources, AUDITED)
    if name not in HANDLERS:
        raise Misconfigured(f"there is no worker {name!r}, only {', '.join(HANDLERS)}")
    return messaging.consuming(resources, TOPOLOGY, name, HANDLERS[name](resources))


def _shop(resources: Resources, cache: Cache | None = None) -> Shop:
    database = resources.database
    products = SqlProducts(database)
    return Shop(
        transaction=database.transaction,
        orders=SqlOrders(database),
        products=CachedProducts(products, cache, resources.settings) if cache else products,
        events=SqlOutbox(database),
        inbox=SqlInbox(database, "public", "shop"),
    )


def _owner_of(resources: Resources) -> Callable[[UUID], Awaitable[int | None]]:
    orders = SqlOrders(resources.database)
    return lambda order_id: orders.owner(OrderId(order_id))


def _payment(resources: Resources) -> Handle:
    database, settings = resources.database_of(payment.SCHEMA), resources.settings
    return payment.Payment(
        database=database,
        inbox=SqlInbox(database, payment.SCHEMA, "payment"),
        events=SqlOutbox(database, payment.SCHEMA),
        latency=settings.payment_latency,
        limit_cents=settings.payment_limit_cents,
    )


def _stock(resources: Resources) -> Handle:
    database = resources.database_of(stock.SCHEMA)
    return stock.Stock(
        database=database,
        inbox=SqlInbox(database, stock.SCHEMA, "stock"),
        events=SqlOutbox(database, stock.SCHEMA),
    )


def _notice(resources: Resources) -> Handle:
    database, settings = resources.database_of(notice.SCHEMA), resources.settings
    return notice.Notice(
        database=database,
        inbox=SqlInbox(database, notice.SCHEMA, "notice"),
        mail_url=settings.url("mail_url"),
        domain=settings.mail_domain,
    )


def _realtime(resources: Resources) -> Handle:
    import showcase.realtime.wiring as realtime

    return realtime.publisher(resources)


HANDLERS: Mapping[str, Callable[[Resources], Handle]] = {
    "payment": _payment,
    "stock": _stock,
    "notice": _notice,
    "shop": lambda resources: _shop(resources).heard,
    "realtime": _realtime,
}
"""What each queue's consumer does."""

WORKERS = ("relay", "audit", *HANDLERS)


@dataclass(frozen=True, slots=True)
class CachedProducts:
    """The catalogue, read through the cache."""

    products: Products
    cache: Cache
    settings: Settings

    async def find(self, product_id: ProductId) -> Product | None:
        """See `shop.application.Products`."""
        return await self.cache.get_or_set(
            _PRODUCT.key(product_id),
            lambda: self.products.find(product_id),
            duration=self.settings.product_cached,
        )


_PRODUCT: Kind[Product | None] = Kind("product", TypeAdapter(Product | None))


async def prune(resources: Resources) -> dict[str, int]:
    """Remove all that need not be kept any longer; how many rows of what."""
    removed: dict[str, int] = {}
    for schema in ("public", payment.SCHEMA, stock.SCHEMA, notice.SCHEMA):
        removed |= await messaging.prune(resources.database, schema, resources.settings)
    for slice_ in build_slices(resources, build_auth(resources)):
        if slice_.prune is not None:
            removed |= await slice_.prune()
    return removed
