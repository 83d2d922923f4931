"""Where everything is plugged together: the only module that knows all slices.

What one slice needs of another it asks for as a port; here each port gets its plug. A slice is imported by the
function that builds it: a payment worker starts without loading a web framework and three drivers that it never uses.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import showcase.messaging.wiring as messaging
from showcase.audit.domain.personal import Personal
from showcase.caching import Answer, Cache, Key, Kind, Options
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Anything, Handlers
from showcase.messaging.application.operations import Operations
from showcase.messaging.application.reachable import Reachable
from showcase.messaging.domain import Queue, Topology
from showcase.messaging.infrastructure.outbox import SqlOutbox
from showcase.messaging.wiring import Consumer
from showcase.platform.resources import Resources
from showcase.platform.settings import Misconfigured, Settings
from showcase.platform.slices import Slice
from showcase.platform.worker import Work
from showcase.services import notice, payment, stock
from showcase.shop.application import (
    HEARS,
    PRODUCT_CHANGED,
    TELLS,
    OrderNumber,
    Product,
    ProductData,
    Products,
    Shop,
)
from showcase.shop.domain import OrderId, ProductId
from showcase.shop.infrastructure import SqlHouseholds, SqlOrders, SqlProducts

if TYPE_CHECKING:
    from showcase.audit.application.capture import Capture
    from showcase.audit.application.protecting import Erased
    from showcase.auth.wiring import Auth
    from showcase.documents.api import Provides
    from showcase.documents.application import Repository
    from showcase.documents.domain.documents import Applied, Collection, T
    from showcase.shop.application.views import OrderViews, Rebuilt

SLICES = ("auth", "shop", "views", "caching", "messaging", "audit", "realtime")
AUDITED = (
    *("public.orders", "public.order_lines", "payment.charges", "payment.refunds"),
    *("auth.events", "messaging.actions", "audit.reads", "audit.erasures"),
)
"""The tables whose changes are recorded."""
PRICES = ("pricing.dbo.supplier", "pricing.dbo.price_list")
"""Those in SQL Server, where there is one."""
PERSONAL = (
    Personal(table="orders", subject=("households/{household_id}",), columns=("reference",)),
    # Where nobody has proven who it was, the account that was tried.
    Personal(table="auth.events", subject=("{actor}", "accounts/{account_id}"), columns=("address", "data")),
    Personal(table="audit_context", subject=("{actor}", "database-users/{database_user}"), columns=("client_address",)),
)
"""What in them is personal: it is recorded sealed with its subject's key."""

QUEUES = (
    Queue(name="payment", types=payment.TAKES),
    Queue(name="stock", types=stock.TAKES),
    Queue(name="notice", types=notice.TAKES),
    Queue(name="shop", types=tuple(HEARS)),
    Queue(name="realtime", types=("shop.order.#", PRODUCT_CHANGED)),
    Queue(name="views", types=("shop.order.#",)),
    Queue(name="caching", types=(PRODUCT_CHANGED,)),
)
"""Each consumer's queue, and the events that it takes."""
OUTBOXES = ("public", payment.SCHEMA, stock.SCHEMA)
SCHEMAS = (*OUTBOXES, notice.SCHEMA)
"""All that have an inbox; `notice` tells nothing."""


PRODUCT: Kind[Product] = Kind(
    "product",
    Product,
    version=lambda product: product.version,
    tags=lambda product: (f"department:{product.department}",),
)
"""A product in the cache."""


def topology(settings: Settings) -> Topology:
    """All that is declared in the broker."""
    return messaging.topology(QUEUES, settings)


def build_auth(resources: Resources) -> "Auth":
    """Authentication, which every app needs."""
    import showcase.auth.wiring as auth

    return auth.build(resources, SqlHouseholds(resources.database).add)


def build_slices(resources: Resources, auth: "Auth", names: Sequence[str] = SLICES) -> list[Slice]:
    """The slices of an app. Raises Misconfigured for a name that is none."""
    import showcase.audit.wiring as audit
    import showcase.caching.wiring as caching
    import showcase.documents.wiring as documents
    import showcase.realtime.wiring as realtime
    import showcase.shop.wiring as shop

    cached = once(lambda: caching.Caching(resources))
    built: Mapping[str, Callable[[], Slice]] = {
        "auth": auth.doors,
        "shop": lambda: shop.build(resources, _shop(resources, cached().cache)),
        "views": lambda: shop.build_views(partial(documents.metrics, resources)),
        "caching": lambda: cached().doors(),
        "messaging": lambda: messaging.build(
            resources, topology(resources.settings), SCHEMAS, partial(asyncapi, resources.settings)
        ),
        "audit": lambda: audit.build(resources, AUDITED),
        "realtime": lambda: realtime.build(
            resources, _owner_of(resources), auth.access.has_ended, auth.denylist.on_denied
        ),
    }
    if unknown := sorted(set(names) - set(built)):
        raise Misconfigured(f"there is no slice {', '.join(unknown)}, only {', '.join(built)}")
    return [auth.background, *(built[name]() for name in names)]


def build_worker(resources: Resources, name: str) -> Work:
    """What a background process does. Raises Misconfigured for a name that is none."""
    settings = resources.settings
    if name == "relay":
        return messaging.relaying(resources, topology(settings), OUTBOXES)
    if name == "parking":
        return messaging.parking(resources, topology(settings))
    if name == "audit":
        import showcase.audit.wiring as audit

        prices = PRICES if "sqlserver" in settings.audit_sources else ()
        return audit.work(resources, ("public.audit_context", *AUDITED, *prices), PERSONAL)
    if name == "capture":
        import showcase.audit.wiring as audit

        return audit.supervising(resources, AUDITED)
    if name == "anchor":
        import showcase.audit.wiring as audit

        return audit.anchor(resources)
    if name == "invalidation":
        import showcase.caching.wiring as caching

        return caching.following(resources, PRODUCT, "public.products", "product_id")
    if name not in CONSUMERS:
        raise Misconfigured(f"there is no worker {name!r}, only {', '.join(WORKERS)}")
    return messaging.consuming(resources, topology(settings), CONSUMERS[name](resources))


def operations(resources: Resources) -> Operations:
    """What an operator sees and does."""
    return messaging.operations(resources, topology(resources.settings), SCHEMAS)


async def erase(resources: Resources, subject: str, reason: str) -> "Sequence[Erased]":
    """Destroy the keys of what the audit has recorded of a subject, and of its account if it has one.

    Raises Unavailable.
    """
    import showcase.audit.wiring as audit
    from showcase.auth.infrastructure.accounts import SqlAccounts

    account = await SqlAccounts(resources.database).by_subject(subject)
    subjects = (subject,) if account is None else (subject, f"accounts/{account.id}")
    return await audit.subjects(resources).erase(subjects, reason)


def capture(resources: Resources, source: str = "postgres") -> "Capture":
    """What captures the changes of all audited tables, or of those in SQL Server."""
    import showcase.audit.wiring as audit

    return audit.capture(resources, AUDITED, source)


def repositories(resources: Resources) -> "Provides":
    """Documents for the routes of an app (`documents.api.provided`)."""

    def provides(collection: "Collection[T]") -> "Repository[T]":
        import showcase.documents.wiring as documents

        return documents.repository(resources, collection)

    return provides


def _shop(resources: Resources, cache: Cache | None = None) -> Shop:
    database, settings = resources.database, resources.settings
    shop = Shop(
        transaction=database.transaction,
        orders=SqlOrders(database),
        products=SqlProducts(database),
        events=outbox(resources),
        order_within=settings.order_within,
    )
    if cache is None or settings.cache_levels == "none":
        return shop
    from showcase.platform.web.envelope import say

    products = CachedProducts(shop.products, cache, _options(settings), say)
    changed = products.changed if settings.cache_invalidate_on_write else shop.changed
    return replace(shop, products=products, changed=changed)


def outbox(resources: Resources, service: str = "") -> SqlOutbox:
    """Where a service puts its events; the shop's, if none is named."""
    return SqlOutbox(resources.database_of(service), service or "public", topology(resources.settings))


def _owner_of(resources: Resources) -> Callable[[UUID], Awaitable[int | None]]:
    orders = SqlOrders(resources.database)
    return lambda order_id: orders.owner(OrderId(order_id))


def _payment(resources: Resources) -> Consumer:
    database, settings = resources.database_of(payment.SCHEMA), resources.settings
    service = payment.Payment(
        database=database,
        events=outbox(resources, payment.SCHEMA),
        latency=settings.payment_latency,
        limit_cents=settings.payment_limit_cents,
    )
    return Consumer(queue="payment", handlers=service.handlers(), database=database, schema=payment.SCHEMA)


def _stock(resources: Resources) -> Consumer:
    database = resources.database_of(stock.SCHEMA)
    service = stock.Stock(
        database=database, events=outbox(resources, stock.SCHEMA), shelf_pieces=resources.settings.shelf_pieces
    )
    return Consumer(
        queue="stock", handlers=service.handlers(), database=database, schema=stock.SCHEMA, batch=stock.BATCH
    )


def _notice(resources: Resources) -> Consumer:
    database, settings = resources.database_of(notice.SCHEMA), resources.settings
    service = notice.Notice(database=database, mail_url=settings.url("mail_url"), domain=settings.mail_domain)
    return Consumer(queue="notice", handlers=service.handlers(), database=database, schema=notice.SCHEMA)


def _shop_worker(resources: Resources) -> Consumer:
    shop, handlers = _shop(resources), Handlers()
    for type_ in HEARS:
        handlers.on(type_, OrderNumber, shop.heard)
    return Consumer(queue="shop", handlers=handlers, database=resources.database)


def _realtime(resources: Resources) -> Consumer:
    import showcase.realtime.wiring as realtime

    publish, handlers = realtime.publisher(resources), Handlers()

    async def tell(event: Event, data: Anything) -> None:
        await publish(event)

    for types in ("shop.order.#", PRODUCT_CHANGED):
        handlers.on(types, Anything, tell)
    return Consumer(queue="realtime", handlers=handlers, inbox=Reachable(partial(realtime.ping, resources)))


def _views(resources: Resources) -> Consumer:
    import showcase.documents.wiring as documents
    from showcase.shop.application.views import ORDER_VIEWS, OrderSeen

    handlers = Handlers()
    handlers.on("shop.order.#", OrderSeen, order_views(resources).heard)
    return Consumer(
        queue="views",
        handlers=handlers,
        inbox=Reachable(documents.mongo(resources).ping),
        prepare=partial(documents.apply, resources, ORDER_VIEWS),
    )


def order_views(resources: Resources) -> "OrderViews":
    """What keeps the views of orders."""
    import showcase.documents.wiring as documents
    from showcase.shop.application.views import ORDER_VIEWS, OrderViews

    return OrderViews(documents.repository(resources, ORDER_VIEWS))


async def apply_documents(resources: Resources) -> "Applied":
    """Bring MongoDB to what is declared beside the models of all documents."""
    import showcase.documents.wiring as documents
    from showcase.audit.wiring import COLLECTIONS
    from showcase.shop.application.views import ORDER_VIEWS

    return await documents.apply(resources, ORDER_VIEWS, *COLLECTIONS)


async def rebuild_views(resources: Resources, *, from_nothing: bool) -> "Rebuilt":
    """Make the views of all orders anew.

    Args:
        from_nothing: remove all of them first: whoever reads meanwhile misses some.
    """
    import showcase.documents.wiring as documents
    from showcase.shop.application.views import ORDER_VIEWS

    if from_nothing:
        await documents.drop(resources, ORDER_VIEWS)
    await documents.apply(resources, ORDER_VIEWS)
    return await order_views(resources).rebuild(SqlOrders(resources.database))


def _caching(resources: Resources) -> Consumer:
    import showcase.caching.wiring as caching

    remove, _ = caching.invalidating(resources, PRODUCT)
    handlers = Handlers()

    async def changed(event: Event, data: ProductData) -> None:
        await remove(data.product_id, data.version, False)

    handlers.on(PRODUCT_CHANGED, ProductData, changed)
    return Consumer(queue="caching", handlers=handlers)


CONSUMERS: Mapping[str, Callable[[Resources], Consumer]] = {
    "payment": _payment,
    "stock": _stock,
    "notice": _notice,
    "shop": _shop_worker,
    "realtime": _realtime,
    "views": _views,
    "caching": _caching,
}
"""Who handles the messages of each queue."""

WORKERS = ("relay", "audit", "capture", "anchor", "parking", "invalidation", *CONSUMERS)


def definitions(settings: Settings) -> dict[str, Any]:
    """The broker's exchanges, queues and bindings, as its management imports them."""
    from showcase.messaging.infrastructure import definitions

    return definitions.definitions(topology(settings))


def asyncapi(settings: Settings) -> dict[str, Any]:
    """All events and queues, and what goes over the WebSocket, described (AsyncAPI 3)."""
    tells = {"shop": TELLS, "payment": payment.TELLS, "stock": stock.TELLS}
    from showcase.messaging.application.asyncapi import document
    from showcase.realtime.application.asyncapi import with_websocket

    return with_websocket(document(topology(settings), tells))


@dataclass(frozen=True, slots=True)
class CachedProducts:
    """The catalogue, read through the cache (`shop.application.Products`).

    Attributes:
        say: adds a header to the answer of the request for which it is read.
    """

    products: Products
    cache: Cache
    options: Options
    say: Callable[[str, str], None]

    async def find(self, product_id: ProductId) -> Product | None:
        """Says where it came from, and how old it is (RFC 9211)."""
        key = PRODUCT.key(product_id)
        answer = await self.cache.answer(key, lambda: self.products.find(product_id), self.options)
        self.say("Cache-Status", _cache_status(answer))
        return answer.value

    async def find_many(self, product_ids: Sequence[ProductId]) -> Mapping[ProductId, Product]:
        """One query for all that are not in the cache."""
        ids = {PRODUCT.key(product_id): product_id for product_id in product_ids}

        async def load(keys: Sequence[Key[Product]]) -> Mapping[Key[Product], Product | None]:
            found = await self.products.find_many([ids[key] for key in keys])
            return {key: found.get(ids[key]) for key in keys}

        answers = await self.cache.get_many_or_set(list(ids), load, self.options)
        return {ids[key]: product for key, product in answers.items() if product is not None}

    async def change(
        self, product_id: ProductId, changes: Mapping[str, str | None], if_version: int | None = None
    ) -> Product | None:
        """Not through the cache: in the caller's transaction."""
        return await self.products.change(product_id, changes, if_version)

    async def changed(self, product_id: ProductId, version: int) -> None:
        """What is older is no longer valid. Redis that is away is told later."""
        await self.cache.remove(PRODUCT.key(product_id), version)


def _options(settings: Settings) -> Options:
    """Raises Misconfigured for durations that do not go together."""
    try:
        return Options(
            duration=settings.product_cached,
            jitter=settings.product_jitter,
            near=settings.product_near,
            absent=settings.product_absent,
            early=settings.product_early,
            stale=settings.product_stale,
            fail_safe=settings.product_fail_safe,
            soft=settings.product_soft or None,
            hard=settings.product_hard,
        )
    except ValueError as error:
        raise Misconfigured(f"SHOWCASE_PRODUCT_…: {error}") from error


def _cache_status(answer: Answer[Product]) -> str:
    """https://www.rfc-editor.org/rfc/rfc9211.html#section-2"""
    if answer.source == "loaded":
        return "showcase; fwd=miss; detail=loaded"
    return f"showcase; hit; ttl={math.floor(answer.ttl_s)}; detail={answer.source}"


async def prune(resources: Resources) -> dict[str, int]:
    """Remove all that need not be kept any longer; how many rows of what."""
    removed: dict[str, int] = {}
    for slice_ in build_slices(resources, build_auth(resources)):
        if slice_.prune is not None:
            removed |= await slice_.prune()
    return removed
