"""The app: `create_app(settings)`."""

from collections.abc import Sequence

from fastapi import FastAPI

import showcase.auth.wiring as auth
from showcase.composition import SLICES, build_slices
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.web.app import build


def create_app(settings: Settings, slices: Sequence[str] = SLICES) -> FastAPI:
    """An app with resources of its own; several can live in one process.

    Args:
        slices: the patterns to serve; one alone needs only its own servers.

    Raises Misconfigured when the URL of a server that is needed is not set, and for an unknown slice.
    """
    resources = Resources(settings)
    return build(resources, build_slices(resources, slices), auth.tokens(settings).authenticate)
