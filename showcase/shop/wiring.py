"""The shop as a slice of an app."""

from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.idempotency import idempotent, prune
from showcase.shop.api import routes
from showcase.shop.application import Shop


def build(resources: Resources, shop: Shop) -> Slice:
    """Its routes, with an Idempotency-Key for POSTs."""
    database = resources.database
    route_class = idempotent(database, resources.settings.idempotency_lifetime)

    async def pruned() -> dict[str, int]:
        return {"idempotency_keys": await prune(database)}

    return Slice(name="shop", routers=(routes(shop, route_class),), prune=pruned)
