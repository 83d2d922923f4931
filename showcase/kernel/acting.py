"""Who acts, and why: said by whoever begins something, read by the database adapter, which tells the audit.

The current one is a `ContextVar`: each request and each handled message runs in a context of its own, and so do the
tasks that it starts.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

ANONYMOUS = "anonymous"
"""Who has sent a request, as long as nobody has proven who it is."""
LIMITS = {"actor": 200, "session_id": 100, "request_id": 256, "reason": 500, "traceparent": 100}
"""How many characters of each are kept: some of it comes from strangers."""

_CURRENT: "ContextVar[Acting | None]" = ContextVar("acting", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Who does what is being done.

    Attributes:
        actor: `households/7`, `services/payment`, `operators/ada`.
        session_id: in which the actor has signed in.
        request_id: of the request; of a message its correlation id, which all that came of one request share.
        reason: in words, for whoever reads the audit.
        traceparent: W3C Trace Context.
    """

    actor: str
    session_id: str = ""
    request_id: str = ""
    reason: str = ""
    traceparent: str = ""

    def as_json(self) -> str:
        """Compact JSON with what is known, each value cut to its limit, and nothing in it that PostgreSQL refuses."""
        said = {name: _storable(getattr(self, name)[:limit]) for name, limit in LIMITS.items()}
        return json.dumps({name: value for name, value in said.items() if value}, separators=(",", ":"))


def current() -> Acting | None:
    """Who acts here; None where nobody has said so."""
    return _CURRENT.get()


@contextmanager
def acting(who: Acting) -> Iterator[None]:
    """Within the block it is `who` that acts."""
    token = _CURRENT.set(who)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def identify(actor: str, session_id: str = "") -> None:
    """Tell who it is that acts here, now that it is proven; where nobody acts, this changes nothing."""
    here = _CURRENT.get()
    if here is not None:
        _CURRENT.set(replace(here, actor=actor, session_id=session_id))


def _storable(text: str) -> str:
    """Text as PostgreSQL can hold it: it knows no NUL, and half a surrogate pair is no character."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
