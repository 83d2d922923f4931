"""Authenticator apps: enrolled over HTTP as a person would, and logins that are finished with what they show."""

import time
from dataclasses import dataclass

import httpx
import pyotp

from workshop.accounts import PASSWORD

STEP_S = 30
TRIES = 5
"""A client that gets no answer asks again, at the next process, so often at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """Somebody's phone, with the app on it.

    Attributes:
        secret: what it shares with the server, in base32.
        access_token: of the session in which it was enrolled, when a password was all that there was.
    """

    email: str
    secret: str
    access_token: str
    recovery_codes: tuple[str, ...] = ()

    def code(self, steps: int = 0) -> str:
        """What it shows now, or showed so many steps of 30 seconds ago (-1), or will show (1)."""
        return pyotp.TOTP(self.secret).at(time.time(), counter_offset=steps)


def enrolled(shop: httpx.Client, email: str) -> Phone:
    """Enrol a phone, and confirm it with the code that has just passed, so that the present one is still good.

    Raises httpx.HTTPStatusError.
    """
    tokens = shop.post("/auth/login", json={"email": email, "password": PASSWORD}).raise_for_status().json()
    own = {"Authorization": f"Bearer {tokens['access_token']}"}
    secret = shop.post("/auth/totp", headers=own).raise_for_status().json()["secret"]
    phone = Phone(email=email, secret=secret, access_token=tokens["access_token"])
    for _ in range(TRIES):
        confirmed = shop.post("/auth/totp/confirm", json={"code": phone.code(-1)}, headers=own)
        if confirmed.status_code != httpx.codes.UNPROCESSABLE_ENTITY:  # it is when the step turns on the way
            break
    codes = confirmed.raise_for_status().json()["recovery_codes"]
    return Phone(email=email, secret=secret, access_token=tokens["access_token"], recovery_codes=tuple(codes))


def begin(shop: httpx.Client, email: str) -> str:
    """The first half of a login: the password. Returns the challenge to go on with.

    Raises ValueError for any answer but that a second factor is needed.
    """
    answer = _asked(shop, "/auth/login", {"email": email, "password": PASSWORD})
    if answer.status_code != httpx.codes.UNAUTHORIZED or "challenge_id" not in answer.json():
        raise ValueError(f"nobody asks for a second factor: {answer.status_code} {answer.text}")
    return str(answer.json()["challenge_id"])


def finish(shop: httpx.Client, challenge_id: str, code: str) -> httpx.Response:
    """The second half of a login: a code. Without an answer it is sent again, the same one, to the next process."""
    return _asked(shop, "/auth/login/code", {"challenge_id": challenge_id, "code": code})


def sign_in(shop: httpx.Client, phone: Phone, code: str = "") -> httpx.Response:
    """Both halves, with what the phone shows now or with another code."""
    return finish(shop, begin(shop, phone.email), code or phone.code())


def seconds_left() -> float:
    """How long the present step of 30 seconds still is the present one."""
    return STEP_S - time.time() % STEP_S


def _asked(shop: httpx.Client, path: str, body: dict[str, str]) -> httpx.Response:
    for _ in range(TRIES - 1):
        try:
            return shop.post(path, json=body)
        except httpx.TransportError:  # the process is gone: whether it got to do it, nobody knows
            continue
    return shop.post(path, json=body)
