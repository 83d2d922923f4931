"""The shop as a slice of an app."""

from collections.abc import Awaitable, Callable, Sequence

from showcase.platform.resources import Resources
from showcase.platform.slices import Gauge, Slice
from showcase.platform.web.idempotency import idempotent, prune
from showcase.shop.api import views
from showcase.shop.api.page import page_routes
from showcase.shop.api.shop import routes
from showcase.shop.application import Shop

Metrics = Callable[[], Awaitable[Sequence[Gauge]]]


def build_views(metrics: Metrics) -> Slice:
    """The routes that read the views.

    Args:
        metrics: of the server that they are in.
    """
    return Slice(name="views", routers=(views.routes(),), metrics=metrics)


def build(resources: Resources, shop: Shop) -> Slice:
    """Its routes, with an Idempotency-Key for POSTs, and the households' page."""
    database = resources.database
    route_class = idempotent(database, resources.settings.idempotency_lifetime)

    async def pruned() -> dict[str, int]:
        return {"idempotency_keys": await prune(database)}

    pages = page_routes(resources.settings.environment)
    return Slice(name="shop", routers=(routes(shop, route_class), pages), prune=pruned)
