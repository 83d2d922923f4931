"""The mail server: a real SMTP sink whose messages can be read back over HTTP, as Mailpit's can in compose."""

import signal
import sys
from collections.abc import Mapping

import aiosmtpd
import httpx

from workshop.stack.local.folder import CHECKOUT
from workshop.stack.local.server import USER, Launch, Place, environment, own
from workshop.stack.model import NotReady, Urls, credentials, url_of


class Mail:
    """aiosmtpd in a process of its own: see `mail_sink`."""

    name = "mail"
    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main", "api")
    stop_signal = signal.SIGTERM
    stop_within_s = 5.0

    def find(self) -> str:
        return f"aiosmtpd {aiosmtpd.__version__}"

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {
            "SHOWCASE_MAIL_URL": f"smtp://{USER}:{password}@127.0.0.1:{ports['main']}",
            "SHOWCASE_MAIL_API_URL": f"http://{USER}:{password}@127.0.0.1:{ports['api']}",
        }

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        return Launch(
            argv=[sys.executable, "-m", "workshop.stack.local.mail_sink"],
            env=environment(**place.urls, MAIL_FOLDER=str(place.data)),
            cwd=CHECKOUT,  # this very checkout's module, whichever one is installed
        )

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 2.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            with client(urls, timeout_s) as session:
                return str(session.get("/api/v1/info").raise_for_status().json()["Version"])
        except httpx.HTTPError as error:
            raise NotReady(str(error) or type(error).__name__) from error


def client(urls: Urls, timeout_s: float) -> httpx.Client:
    """An HTTP client for the messages that were received (Mailpit's API)."""
    url = url_of(urls, "SHOWCASE_MAIL_API_URL")
    return httpx.Client(
        base_url=f"{url.scheme}://{url.hostname}:{url.port or 8025}", auth=credentials(url), timeout=timeout_s
    )
