"""The attacker's own web server, on this machine: it hands out his public key, and notes who asks for it."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding

from workshop.attacks.forging import jwk_of, self_signed


class Site:
    """Serves until it is closed. A context manager.

    Attributes:
        key: a key pair that the attacker has made.
        certificate: of that key, signed by itself.
        url: where the site is.
        visits: the paths that were asked for.
    """

    def __init__(self) -> None:
        self.key = generate_private_key(SECP256R1())
        self.certificate = self_signed(self.key)
        self.visits: list[str] = []
        pages = {
            "/keys.json": json.dumps({"keys": [jwk_of(self.key.public_key())]}).encode(),
            "/certificate.pem": self.certificate.public_bytes(Encoding.PEM),
        }
        visits = self.visits

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                visits.append(self.path)
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, b""))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - how the library names it
                """A thread of a lesson never prints."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, name="attacker's site", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
