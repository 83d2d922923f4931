"""`/metrics`: how the slices are doing, for Prometheus (text format 0.0.4) and whatever else reads that.

It asks for no token, as scrapers have none, so it is for the internal network: a proxy does not let it through. There
is no secret in it. Whoever asks often gets the same answer again: the servers behind it are asked now and then only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import structlog
from fastapi import APIRouter
from starlette.responses import Response

from showcase.kernel.errors import Unavailable
from showcase.platform.slices import Gauge

log = structlog.get_logger()

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_S = 2.0
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Metrics = Callable[[], Awaitable[Sequence[Gauge]]]


def routes(metrics: Mapping[str, Metrics]) -> APIRouter:
    """The route.

    Args:
        metrics: by the slice that offers them. One whose servers are away is told as such, and keeps no other back.
    """
    router = APIRouter(tags=["health"])
    one_at_a_time = asyncio.Lock()
    kept, kept_until = "", 0.0

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def scrape() -> Response:
        """How the app is doing, in the text format of Prometheus. For the internal network."""
        nonlocal kept, kept_until
        clock = asyncio.get_running_loop().time
        async with one_at_a_time:
            if clock() >= kept_until:
                kept = "".join(_lines(await _asked(metrics)))
                kept_until = clock() + KEPT_S
        return Response(kept, media_type=MEDIA_TYPE)

    return router


async def _asked(metrics: Mapping[str, Metrics]) -> Sequence[Gauge]:
    """What all slices say, and which of them could say it."""
    gauges: list[Gauge] = []
    is_up: dict[str, float] = {}
    for slice_, ask in metrics.items():
        try:
            gauges += await ask()
            is_up[slice_] = 1
        except Unavailable as error:
            log.warning("no metrics", slice=slice_, why=error.detail)
            is_up[slice_] = 0
    return [Gauge(name="showcase_up", help="Whether a slice could be asked.", label="slice", values=is_up), *gauges]


def _lines(gauges: Sequence[Gauge]) -> Iterator[str]:
    """The text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    for gauge in gauges:
        kind = "counter" if gauge.name.endswith("_total") else "gauge"
        yield f"# HELP {gauge.name} {gauge.help}\n# TYPE {gauge.name} {kind}\n"
        for value in gauge.values:
            yield f'{gauge.name}{{{gauge.label}="{value.translate(_ESCAPED)}"}} {gauge.values[value]:.10g}\n'
