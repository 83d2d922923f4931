"""RabbitMQ: a virtual host, with every right in it for the user of the stack."""

import httpx

from workshop.stack.model import Urls, credentials, url_of
from workshop.stack.namespace.part import Trace, found, in_server, speaking_to, taken


class RabbitMQPart:
    """A namespace's virtual host; what is in it goes with it."""

    server = "rabbitmq"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        vhost, everything = in_server(name), {"configure": ".*", "write": ".*", "read": ".*"}
        user, _ = credentials(url_of(self.urls, "SHOWCASE_RABBITMQ_URL"))
        with speaking_to(self.server, httpx.HTTPError), self.client() as api:
            if api.put(f"/api/vhosts/{vhost}").raise_for_status().status_code == httpx.codes.NO_CONTENT:
                raise taken(name, f"rabbitmq vhost {vhost}")
            # The user of the management API has these rights by now; that of AMQP may be another.
            api.put(f"/api/permissions/{vhost}/{user}", json=everything).raise_for_status()

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, httpx.HTTPError), self.client() as api:
            vhosts = api.get("/api/vhosts", params={"columns": "name"}).raise_for_status().json()
        return found("rabbitmq vhost", (vhost["name"] for vhost in vhosts), name)

    def drop(self, name: str) -> None:
        with speaking_to(self.server, httpx.HTTPError), self.client() as api:
            answer = api.delete(f"/api/vhosts/{in_server(name)}")  # ends the connections to it as well
            if answer.status_code != httpx.codes.NOT_FOUND:
                answer.raise_for_status()

    def client(self) -> httpx.Client:
        """An HTTP client for the management API."""
        url = url_of(self.urls, "SHOWCASE_RABBITMQ_API_URL")
        address = f"{url.scheme}://{url.hostname}:{url.port or 15672}"
        return httpx.Client(base_url=address, auth=credentials(url), timeout=self.within_s)
