"""Authentication over HTTP: accounts and signing in, sessions, second factors, and the public keys."""

from fastapi import APIRouter

from showcase.auth.api import accounts, factors, passwords, sessions
from showcase.auth.api.models import Doors


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter()
    router.include_router(accounts.routes(doors))
    router.include_router(passwords.routes(doors))
    router.include_router(sessions.routes(doors))
    router.include_router(factors.routes(doors))
    return router
