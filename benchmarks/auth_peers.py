"""What authentication is measured beside: the same work done bare, by the libraries alone.

Run as a program (`python -m benchmarks.auth_peers 7`) it serves the app as `showcase serve` does, on a listening
socket that it inherits, with two routes more: an empty one, and one that checks a token as many an app does.
"""

import asyncio
import signal
import socket
import sys
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import uvicorn
from argon2 import PasswordHasher, Type
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import APIRouter, FastAPI, HTTPException
from joserfc import jwt as joserfc
from joserfc.jwk import ECKey
from starlette.requests import Request

from showcase.auth import wiring
from showcase.auth.api.models import Me
from showcase.auth.infrastructure.hashing import ITERATIONS, LANES, MEMORY_KIB
from showcase.auth.infrastructure.keys import State
from showcase.composition import build_auth, build_slices
from showcase.platform import logs
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.slices import Slice
from showcase.platform.web.app import build

EMPTY = "/benchmark/empty"
BARE = "/benchmark/bare"
ES256 = ECDSA(SHA256())
CLAIMS = ("iss", "aud", "sub", "client_id", "iat", "exp", "jti")
"""What RFC 9068 §2.2 requires; PyJWT and joserfc are told to ask for it."""


class BareJwt:
    """Checks of tokens by PyJWT and by joserfc, with a key that is parsed already, as their manuals show them."""

    def __init__(self, key: EllipticCurvePublicKey, settings: Settings) -> None:
        self._key = key
        self._audience = settings.audience
        self._issuer = settings.issuer
        self._joserfc_key = ECKey.import_key(key)
        self._joserfc_rules = joserfc.JWTClaimsRegistry(
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            sub={"essential": True},
            client_id={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        )

    def pyjwt(self, token: str) -> dict[str, Any]:
        """The claims of a token. Raises jwt.InvalidTokenError."""
        return jwt.decode(
            token,
            self._key,
            algorithms=["ES256"],
            audience=self._audience,
            issuer=self._issuer,
            options={"require": list(CLAIMS)},
        )

    def joserfc(self, token: str) -> Mapping[str, Any]:
        """The claims of a token. Raises joserfc.errors.JoseError."""
        claims = joserfc.decode(token, self._joserfc_key, algorithms=["ES256"]).claims
        self._joserfc_rules.validate(claims)
        return claims

    def signature(self, token: str) -> None:
        """The least that anybody can do: no form, no claims. Raises InvalidSignature."""
        message, _, written = token.rpartition(".")
        raw = urlsafe_b64decode(written + "==")
        r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
        self._key.verify(encode_dss_signature(r, s), message.encode(), ES256)


def argon2_in_threads(threads: int, seconds: float) -> float:
    """Passwords a second that bare Argon2 checks, by the parameters of the app."""
    hasher = PasswordHasher(
        time_cost=ITERATIONS, memory_cost=MEMORY_KIB, parallelism=LANES, hash_len=32, salt_len=16, type=Type.ID
    )
    hashed = hasher.hash("only for the benchmark")
    began = time.perf_counter()

    def checked(_: int) -> int:
        count = 0
        while time.perf_counter() < began + seconds:
            hasher.verify(hashed, "only for the benchmark")
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(checked, range(threads)))
    return total / (time.perf_counter() - began)


async def signing_key(settings: Settings) -> EllipticCurvePublicKey:
    """The public key of what is signed now."""
    async with Resources(settings) as resources:
        keys = wiring.keys(resources)
        await keys.ensure()
        key = next(key.public.key for key in await keys.load() if key.state is State.CURRENT)
    assert isinstance(key, EllipticCurvePublicKey), "the benchmark is of ES256"
    return key


def peer_routes(resources: Resources, bare_jwt: BareJwt) -> APIRouter:
    """A route that does nothing, and `/me` as it is without this project: PyJWT, then Redis on each request."""
    router = APIRouter()

    @router.get(EMPTY)
    async def empty() -> None:
        return None

    @router.get(BARE)
    async def bare(request: Request) -> Me:
        _, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = bare_jwt.pyjwt(token)
        except jwt.InvalidTokenError as error:
            raise HTTPException(401) from error
        if any(await resources.redis_state.mget(f"denied:{claims['sid']}", f"denied:{claims['sub']}")):
            raise HTTPException(401)
        return Me(
            subject=claims["sub"],
            scopes=claims["scope"].split(),
            session_id=claims["sid"],
            acr=claims["acr"],
            amr=claims["amr"],
            auth_time=claims["auth_time"],
        )

    return router


def peer_app(settings: Settings, slices: Sequence[str] = ("auth",)) -> FastAPI:
    """The app of `showcase.app.create_app`, with the routes above before all others: they are found first."""
    resources = Resources(settings)
    auth = build_auth(resources)
    peers = Slice(
        name="peers", routers=(peer_routes(resources, BareJwt(asyncio.run(signing_key(settings)), settings)),)
    )
    return build(resources, [peers, *build_slices(resources, auth, slices)], auth.access)


def main() -> None:
    """Serve on the socket whose number the command line gives, set up as in `showcase.cli.serve`."""
    logs.configure("app")
    settings = Settings()
    config = uvicorn.Config(
        peer_app(settings),
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=round(settings.drain_s),
        ws_max_size=65_536,
        ws_per_message_deflate=False,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again when it has stopped
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
