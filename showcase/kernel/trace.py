"""One trace through every process: the W3C Trace Context (https://www.w3.org/TR/trace-context/), no more of it
than it takes to pass it on.

The current context is a `ContextVar`: each request and each handled message runs in one of its own.
"""

import re
import secrets
from contextvars import ContextVar

_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
_FORMAT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def continued(traceparent: str | None) -> str:
    """A context that goes on where `traceparent` stands, or a new trace if that is none (§4.3)."""
    if traceparent is not None and _FORMAT.fullmatch(traceparent):
        return f"00-{traceparent[3:35]}-{secrets.token_hex(8)}-{traceparent[53:55]}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def enter(traceparent: str | None) -> str:
    """Make the continuation of `traceparent` the current context, and return it."""
    here = continued(traceparent)
    _CURRENT.set(here)
    return here


def current() -> str:
    """The current context; a new trace where there is none."""
    return _CURRENT.get() or enter(None)
