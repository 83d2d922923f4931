"""Mail: a domain, `<name>.example` (RFC 2606 keeps .example free of real hosts)."""

from collections.abc import Iterator
from typing import Any

import httpx

from workshop.stack.local.mail import client
from workshop.stack.model import Urls
from workshop.stack.namespace.part import NAME, Trace, speaking_to

PAGE = 500
TOP_LEVEL = ".example"


class MailPart:
    """The mail to a namespace's domain."""

    server = "mail"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        """Nothing to make."""

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, httpx.HTTPError), client(self.urls, self.within_s) as api:
            owners = {whose for message in messages(api) for whose in recipients(message)}
        return [Trace(one, "mail to", f"{one}{TOP_LEVEL}") for one in sorted(owners) if name in (None, one)]

    def drop(self, name: str) -> None:
        with speaking_to(self.server, httpx.HTTPError), client(self.urls, self.within_s) as api:
            identifiers = [message["ID"] for message in messages(api) if name in recipients(message)]
            if identifiers:  # naming none would remove all
                api.request("DELETE", "/api/v1/messages", json={"IDs": identifiers}).raise_for_status()


def messages(api: httpx.Client) -> Iterator[dict[str, Any]]:
    """Every message, page by page."""
    start = 0
    while (
        page := api.get("/api/v1/messages", params={"start": start, "limit": PAGE})
        .raise_for_status()
        .json()["messages"]
    ):
        yield from page
        start += len(page)


def recipients(message: dict[str, Any]) -> set[str]:
    """The namespaces to which a message went."""
    to = [address for header in ("To", "Cc", "Bcc") for address in message.get(header) or ()]
    domains = {address["Address"].rpartition("@")[2].lower() for address in to}
    names = {domain.removesuffix(TOP_LEVEL) for domain in domains if domain.endswith(TOP_LEVEL)}
    return {name for name in names if NAME.fullmatch(name)}
