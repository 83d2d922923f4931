"""How a token is written and signed, right or wrong, byte by byte: libraries refuse to write most of what is here."""

import base64
import hmac
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from jwt.algorithms import ECAlgorithm

Json = Mapping[str, Any]
Sign = Callable[[bytes], bytes]

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""How many points P-256 has (FIPS 186-5): numbers in a signature count modulo this one."""


def b64(plain: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def unb64(part: str) -> bytes:
    """What stands in a part of a genuine token."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def written(members: Json | bytes) -> str:
    """A header or claims as they stand in a token; bytes, which need not be a JSON object, as they are."""
    return b64(members if isinstance(members, bytes) else json.dumps(members, separators=(",", ":")).encode())


def token(header: Json | bytes, claims: Json | bytes, sign: Sign) -> str:
    """A JWS in compact serialisation (RFC 7515 §7.1)."""
    signed = f"{written(header)}.{written(claims)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def unsigned(message: bytes) -> bytes:
    """No signature at all."""
    return b""


def hs256(secret: bytes) -> Sign:
    """HMAC-SHA-256 with any secret (RFC 7518 §3.2)."""
    return lambda message: hmac.digest(secret, message, "sha256")


def ecdsa(key: EllipticCurvePrivateKey, hash_: hashes.HashAlgorithm | None = None) -> Sign:
    """ECDSA as JWS writes it: r and s, side by side (RFC 7518 §3.4)."""
    length = (key.curve.key_size + 7) // 8

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, ECDSA(hash_ or hashes.SHA256())))
        return r.to_bytes(length) + s.to_bytes(length)

    return sign


def as_der(signature: bytes) -> bytes:
    """The same two numbers as most other formats write them (RFC 3279 §2.2.3)."""
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def other_half(genuine: str) -> str:
    """The same token under its other valid signature: if (r, s) is one, so is (r, n - s)."""
    signed, _, part = genuine.rpartition(".")
    signature = unb64(part)
    s = P256_ORDER - int.from_bytes(signature[32:])
    return f"{signed}.{b64(signature[:32] + s.to_bytes(32))}"


def jwk_of(key: EllipticCurvePublicKey) -> dict[str, Any]:
    """A public key as JSON (RFC 7517)."""
    return ECAlgorithm.to_jwk(key, as_dict=True)


def self_signed(key: EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate that nobody but its holder vouches for."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    valid = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return valid.sign(key, hashes.SHA256())


def encrypted_to(key: EllipticCurvePublicKey, plain: bytes, header: Json) -> str:
    """A JWE (RFC 7516) that only the holder of a key can read, and that anybody can write.

    ECDH-ES with AES-256-GCM (RFC 7518 §4.6, §5.3).
    """
    mine = generate_private_key(SECP256R1())
    name = b"A256GCM"
    info = len(name).to_bytes(4) + name + bytes(4) + bytes(4) + (256).to_bytes(4)
    secret = ConcatKDFHash(hashes.SHA256(), 32, info).derive(mine.exchange(ECDH(), key))
    protected = written({**header, "alg": "ECDH-ES", "enc": "A256GCM", "epk": jwk_of(mine.public_key())})
    nonce = os.urandom(12)
    sealed = AESGCM(secret).encrypt(nonce, plain, protected.encode())
    return ".".join((protected, "", b64(nonce), b64(sealed[:-16]), b64(sealed[-16:])))
