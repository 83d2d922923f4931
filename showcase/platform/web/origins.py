"""Origin: from which site's page a browser's request comes (RFC 6454 §7; OWASP CSRF cheat sheet: verifying origin)."""

from collections.abc import Collection
from urllib.parse import urlsplit

from showcase.kernel.errors import Forbidden

LOCAL = ("localhost", "127.0.0.1", "::1")


class UntrustedOrigin(Forbidden):
    """A page of another site may not do this."""


def is_trusted(origin: str, host: str, trusted: Collection[str]) -> bool:
    """Whether a page is one of our own, or of those that we trust.

    Args:
        origin, host: as the headers have them.
        trusted: other origins, `https://shop.example`.
    """
    try:
        parts = urlsplit(origin)
        is_own = parts.netloc != "" and parts.netloc == host
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL)
    except ValueError:
        is_own = is_safe = False
    return (is_own and is_safe) or origin in trusted
