"""What RabbitMQ's management plugin has measured: how many messages a second go into and out of each queue."""

from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

import httpx
import structlog

from showcase.kernel.errors import Unavailable
from showcase.messaging.application.operations import Rate

log = structlog.get_logger()

COLUMNS = "name,message_stats.publish_details.rate,message_stats.ack_details.rate"
MAX_QUEUES = 500
"""A page of the API has no more."""


class Management:
    """The management API of one broker. It measures now and then, so a rate is some seconds old.

    Args:
        api_url: `http://user:password@host:15672`.
        amqp_url: says by its path which virtual host is meant: `amqp://…/shop`; `/` if it has none.
        timeout_s: the longest that a call may take.
    """

    def __init__(self, api_url: str, amqp_url: str, *, timeout_s: float) -> None:
        url, vhost = urlsplit(api_url), unquote(urlsplit(amqp_url).path[1:]) or "/"
        self._address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}/api/queues/{quote(vhost, safe='')}"
        self._credentials = (unquote(url.username or ""), unquote(url.password or ""))
        self._timeout_s = timeout_s

    async def rates(self) -> Mapping[str, Rate]:
        """Messages a second by queue; nothing of a queue that nothing has moved through. Raises Unavailable."""
        try:
            # One client a call: an operator looks now and then, and nothing needs closing.
            async with httpx.AsyncClient(auth=self._credentials, timeout=self._timeout_s) as client:
                params = {"columns": COLUMNS, "page": "1", "page_size": str(MAX_QUEUES)}
                answer = (await client.get(self._address, params=params)).raise_for_status().json()
            return {queue["name"]: _rate(queue.get("message_stats")) for queue in answer["items"]}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("no rates", why=type(error).__name__)  # not the error itself: it may hold the URL
            raise Unavailable("rabbitmq's management API does not answer as it should") from error


def _rate(stats: Mapping[str, Mapping[str, float]] | None) -> Rate:
    stats = stats or {}
    return Rate(*(float(stats.get(name, {}).get("rate", 0.0)) for name in ("publish_details", "ack_details")))
