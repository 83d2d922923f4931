"""Authentication, built from settings."""

from showcase.auth.infrastructure import AccessTokens
from showcase.kernel.clock import system_clock
from showcase.platform.settings import Settings


def tokens(settings: Settings) -> AccessTokens:
    """Issues and checks the access tokens of this system."""
    return AccessTokens(settings.token_key, issuer=settings.issuer, audience=settings.audience, clock=system_clock)
