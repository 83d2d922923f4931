"""The app: `create_app(settings)`."""

from collections.abc import Sequence

from fastapi import FastAPI

from showcase.composition import SLICES, build_auth, build_slices, repositories
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.web.app import build


def create_app(settings: Settings, slices: Sequence[str] = SLICES) -> FastAPI:
    """An app with resources of its own; several can live in one process.

    Args:
        slices: the patterns to serve; one alone needs its own servers, and those by which tokens are checked
            (PostgreSQL and redis-state).

    Raises Misconfigured when the URL of a server that is needed is not set, and for an unknown slice.
    """
    resources = Resources(settings)
    auth = build_auth(resources)
    app = build(resources, build_slices(resources, auth, slices), auth.access)
    app.state.documents = repositories(resources)
    return app
