"""Secrets from the settings, and keys derived from them: one purpose, one key."""

import hmac
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

NONCE_BYTES = 12


class Unreadable(ValueError):
    """What was sealed cannot be opened: with another secret, for another purpose, or damaged."""


class Secrets:
    """Derives keys (HKDF, RFC 5869) and seals with them (AES-256-GCM, NIST SP 800-38D).

    Args:
        given: `id:secret,id:secret`; the first is for what is new, the others for what they have made before.
    """

    def __init__(self, given: SecretStr) -> None:
        self._secrets = dict(one.split(":", 1) for one in given.get_secret_value().split(","))
        self.newest = next(iter(self._secrets))
        self.key = lru_cache(64)(self._derived)

    def _derived(self, purpose: str, secret_id: str) -> bytes:
        """The 32 bytes for a purpose. Raises Unreadable for a secret that is no longer there."""
        if secret_id not in self._secrets:
            raise Unreadable(f"SHOWCASE_SECRETS has no secret {secret_id} any more")
        hkdf = HKDF(SHA256(), 32, salt=None, info=f"showcase {purpose}".encode())
        return hkdf.derive(self._secrets[secret_id].encode())

    def mac(self, purpose: str, message: bytes, secret_id: str | None = None) -> bytes:
        """HMAC-SHA-256 of a message, by the newest secret or a named one. Raises Unreadable."""
        return hmac.digest(self.key(purpose, secret_id or self.newest), message, "sha256")

    def seal(self, purpose: str, plain: bytes, context: str) -> bytes:
        """Encrypt.

        Args:
            context: what the secret belongs to, such as a row's key: sealed for one, it cannot be moved to another.
        """
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self.key(purpose, self.newest)).encrypt(nonce, plain, context.encode())
        return self.newest.encode() + b":" + nonce + sealed

    def open(self, purpose: str, sealed: bytes, context: str) -> bytes:
        """Decrypt. Raises Unreadable."""
        secret_id, _, rest = sealed.partition(b":")
        try:
            key = AESGCM(self.key(purpose, secret_id.decode()))
            return key.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], context.encode())
        except (InvalidTag, UnicodeDecodeError, ValueError) as error:
            raise error if isinstance(error, Unreadable) else Unreadable(f"cannot be opened: {purpose}") from error
