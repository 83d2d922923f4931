"""Two verifiers that are not ours: one that believes what it is told, and one line of a good library.

The first is no straw man: each line of it has been shipped by somebody, and the attacks name by whom.
"""

import base64
import hmac
import json
import math
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

Verify = Callable[[str], object]
"""Gives the claims of a token; raises whatever it likes."""


class Refused(Exception):
    """The naive verifier has noticed something."""


def read(part: str) -> Any:
    """JSON in base64url, read as kindly as the standard library reads it: strange characters are skipped."""
    return json.loads(base64.urlsafe_b64decode(part + "=="))


class Naive:
    """A verifier as one writes it on a Friday: it works for every token that it should work for.

    Args:
        jwks: our public keys; it keeps them in a table, as PEM.
    """

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE TABLE keys (kid TEXT, pem TEXT)")
        self._db.executemany("INSERT INTO keys VALUES (?, ?)", [(key["kid"], pem_of(key)) for key in jwks["keys"]])

    def verify(self, token: str) -> Any:
        """The claims of a token, if all is well with it."""
        parts = token.split(".")
        header, claims = read(parts[0]), read(parts[1])
        algorithm = str(header.get("alg")).lower()
        if algorithm == "none":
            return claims
        key = self.key_of(header)
        signed, signature = f"{parts[0]}.{parts[1]}".encode(), base64.urlsafe_b64decode(parts[2] + "==")
        if algorithm == "hs256":
            good = hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature)
        else:
            good = jwt.get_algorithm_by_name(header["alg"]).verify(signed, load_pem_public_key(key), signature)
        if not good or claims.get("exp", math.inf) < time.time():
            raise Refused
        return claims

    def key_of(self, header: Mapping[str, Any]) -> bytes:
        """The key that the token asks for."""
        if "jwk" in header:
            return pem_of(header["jwk"]).encode()
        if "jku" in header:
            return pem_of(httpx.get(header["jku"], timeout=5).json()["keys"][0]).encode()
        if "x5c" in header:
            return _pem(x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0])).public_key())
        if "x5u" in header:
            return _pem(x509.load_pem_x509_certificate(httpx.get(header["x5u"], timeout=5).content).public_key())
        row = self._db.execute(f"SELECT pem FROM keys WHERE kid = '{header['kid']}'").fetchone()  # noqa: S608 - the hole
        return str(row[0]).encode() if row else (Path(tempfile.gettempdir()) / header["kid"]).read_bytes()


def pinned(jwks: Mapping[str, Any], audience: str) -> Verify:
    """PyJWT as its documentation shows it: our key by `kid`, algorithm and audience given. One line, and good."""
    keys = {key["kid"]: jwt.PyJWK(key).key for key in jwks["keys"]}

    def verify(token: str) -> object:
        kid = jwt.get_unverified_header(token)["kid"]
        return jwt.decode(token, keys[kid], algorithms=["ES256"], audience=audience)

    return verify


def accepts(verify: Verify, token: str) -> bool:
    """Whether a verifier falls for a token. One that breaks has not accepted it, and in an app is a 500."""
    try:
        verify(token)
    except Exception:
        return False
    return True


def pem_of(jwk: Mapping[str, Any]) -> str:
    """A public key as text, as it stands in most configuration files."""
    return _pem(jwt.PyJWK({**jwk, "alg": "ES256"}).key).decode()


def _pem(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found
