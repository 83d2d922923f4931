"""The shop, built from resources and from what other slices lend it."""

from showcase.kernel.events import EventSink
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.idempotency import idempotent, prune
from showcase.shop.api import routes
from showcase.shop.application import STEPS, Inbox, Products, Shop
from showcase.shop.infrastructure import SqlOrders, SqlProducts

TAKES = tuple(STEPS)


def use_cases(resources: Resources, events: EventSink, inbox: Inbox, products: Products | None = None) -> Shop:
    """The shop's use cases.

    Args:
        products: reads of the catalogue, if not straight from the database.
    """
    database = resources.database
    return Shop(
        transaction=database.transaction,
        orders=SqlOrders(database),
        products=products or SqlProducts(database),
        events=events,
        inbox=inbox,
    )


def build(resources: Resources, shop: Shop) -> Slice:
    """The shop as a slice of an app."""
    database = resources.database
    route_class = idempotent(database, resources.settings.idempotency_lifetime)

    async def pruned() -> dict[str, int]:
        return {"idempotency_keys": await prune(database)}

    return Slice(name="shop", routers=(routes(shop, route_class),), prune=pruned)
