"""An app out of slices."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web import docs, health, metrics, problems
from showcase.platform.web.callers import Authenticate
from showcase.platform.web.envelope import BodyLimit, Envelope


def build(resources: Resources, slices: Sequence[Slice], authenticate: Authenticate) -> FastAPI:
    """The app that serves some slices and closes its resources when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources, _all_running(slices):
            yield

    app = FastAPI(
        title="Backend Architecture Showcase",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.authenticate = authenticate
    app.state.drains = [one.drain for one in slices if one.drain is not None]
    app.add_middleware(BodyLimit, max_bytes=resources.settings.max_body_bytes)
    app.add_middleware(Envelope)  # added last, so it is around the other
    problems.install(app)
    docs.install(app)
    app.include_router(health.routes(resources.pings, resources.spare))
    app.include_router(metrics.routes({one.name: one.metrics for one in slices if one.metrics is not None}))
    for slice_ in slices:
        for router in slice_.routers:
            app.include_router(router)
    return app


@asynccontextmanager
async def _all_running(slices: Sequence[Slice]) -> AsyncIterator[None]:
    """What slices do in the background of an app, while it serves."""
    async with AsyncExitStack() as stack:
        for slice_ in slices:
            if slice_.running is not None:
                await stack.enter_async_context(slice_.running())
        yield
