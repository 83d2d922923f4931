"""The keys that sign access tokens, and how they are written: JWK (RFC 7517), named by thumbprint (RFC 7638).

One algorithm a key, and the key says which: a token is never asked (RFC 8725 §3.1).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from jwt import InvalidKeyError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

Algorithm = Literal["ES256", "EdDSA"]
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey

SIGNATURE_BYTES = 64
"""Of ES256 (RFC 7518 §3.4) and of Ed25519 (RFC 8032 §5.1.6) alike."""

_EC = ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)
_OKP = OKPAlgorithm()
_MEMBERS: Mapping[str, tuple[str, ...]] = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""What makes a key the key it is, in the order of RFC 7638 §3.2."""
_KINDS = (["ES256", "EC", "P-256"], ["EdDSA", "OKP", "Ed25519"])
"""`alg`, `kty` and `crv` that go together."""


class BadKey(ValueError):
    """A JWK that is never verified with."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key: parsed once, then used for every token.

    Attributes:
        kid: RFC 7638 thumbprint, 43 characters of base64url.
    """

    kid: str
    algorithm: Algorithm
    key: PublicKey

    @classmethod
    def of(cls, key: PublicKey) -> Self:
        """The key as we use it."""
        algorithm: Algorithm = "ES256" if isinstance(key, EllipticCurvePublicKey) else "EdDSA"
        return cls(_thumbprint(_written(key)), algorithm, key)

    @classmethod
    def read(cls, jwk: Mapping[str, Any]) -> Self:
        """A public key from its JWK.

        Only keys that are for verifying signatures, of P-256 with ES256 or Ed25519 with EdDSA: of 128 bits of
        strength each. So no RSA of any size, no smaller or other curve, no symmetric key (RFC 8725 §3.1, §3.5).

        Raises BadKey.
        """
        if "d" in jwk:
            raise BadKey("a private key among the public ones")
        if jwk.get("use") != "sig" or jwk.get("key_ops") != ["verify"]:
            raise BadKey("a key that is not for verifying signatures")
        if [jwk.get("alg"), jwk.get("kty"), jwk.get("crv")] not in _KINDS:
            raise BadKey("an algorithm that is none of ours, or not that of the key")
        try:  # refuses coordinates of another length, and points that are not on the curve
            key = ECAlgorithm.from_jwk(dict(jwk)) if jwk["kty"] == "EC" else OKPAlgorithm.from_jwk(dict(jwk))
        except (InvalidKeyError, ValueError, TypeError) as error:
            raise BadKey(f"a key that cannot be read: {error}") from error
        assert isinstance(key, PublicKey)  # without "d" there is nothing private in it
        found = cls.of(key)
        if jwk.get("kid") != found.kid:
            raise BadKey("a key under the name of another")
        return found

    @property
    def jwk(self) -> dict[str, Any]:
        """As it is published (RFC 7517 §4)."""
        members = {name: value for name, value in _written(self.key).items() if name in ("kty", "crv", "x", "y")}
        return {**members, "use": "sig", "key_ops": ["verify"], "alg": self.algorithm, "kid": self.kid}

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether it is this key's signature."""
        if isinstance(self.key, EllipticCurvePublicKey):
            return _EC.verify(message, self.key, signature)
        return _OKP.verify(message, self.key, signature)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and its public one."""

    private: PrivateKey
    public: VerifyingKey

    @classmethod
    def new(cls, algorithm: Algorithm) -> Self:
        """A fresh one."""
        return cls._of(generate_ec(SECP256R1()) if algorithm == "ES256" else Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, der: bytes) -> Self:
        """A key from its bytes (PKCS #8, RFC 5958). Raises BadKey."""
        key = load_der_private_key(der, password=None)
        if not isinstance(key, PrivateKey):
            raise BadKey("a private key of a kind that is none of ours")
        return cls._of(key)

    @classmethod
    def _of(cls, key: PrivateKey) -> Self:
        return cls(key, VerifyingKey.of(key.public_key()))

    def der(self) -> bytes:
        """Its bytes, in clear: to be sealed at once."""
        return self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _written(key: PublicKey) -> dict[str, Any]:
    if isinstance(key, EllipticCurvePublicKey):
        return ECAlgorithm.to_jwk(key, as_dict=True)
    return OKPAlgorithm.to_jwk(key, as_dict=True)


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    written = json.dumps(members, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(written).digest()).rstrip(b"=").decode()
