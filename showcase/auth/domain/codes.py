"""One-time codes: of an authenticator app, for when that is lost, and sent by mail."""

import base64
import hmac
import secrets
from datetime import datetime

import pyotp

TOTP_SECRET_BYTES = 20
"""160 bits, as RFC 4226 §4 recommends."""
RECOVERY_CODES = 10
RECOVERY_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: without I, L, O and U, which are misread."""
RECOVERY_LENGTH = 12
"""Times 5 bits: 60, more than anybody tries, and ten of them hardly change that."""
GROUP = 4
MAIL_DIGITS = 8
MAIL_TRIES = 5


def new_totp_secret() -> bytes:
    """The secret that we share with an authenticator app."""
    return secrets.token_bytes(TOTP_SECRET_BYTES)


def base32(secret: bytes) -> str:
    """A secret as authenticator apps read it (RFC 4648 §6)."""
    return base64.b32encode(secret).decode("ascii")


def provisioning_uri(secret: bytes, email: str, issuer: str) -> str:
    """What an authenticator app reads from the QR code: `otpauth://totp/…`."""
    return pyotp.TOTP(base32(secret)).provisioning_uri(name=email, issuer_name=issuer)


def matching_step(secret: bytes, code: str, now: datetime, last_step: int) -> int | None:
    """The 30-second step of which this is the code (RFC 6238), if it may still be used.

    The present step and the one before it, since typing takes time (§5.2); never a future one. A step is good
    once: whoever looks over a shoulder comes too late (§5.2 at the end).

    Args:
        code: as it was typed.
        last_step: that of the code that was accepted last.
    """
    totp = pyotp.TOTP(base32(secret))
    given = typed(code).encode("utf-8", "surrogatepass")
    present = totp.timecode(now)
    matching = None
    for step in (present - 1, present):  # both, always: the time tells nothing
        is_right = hmac.compare_digest(totp.generate_otp(step).encode(), given)
        if is_right and step > last_step:
            matching = step
    return matching


def new_recovery_codes() -> tuple[str, ...]:
    """Ten codes for whoever has lost the authenticator: `7QJX-0V3K-ZP8M`."""
    return tuple(_new_recovery_code() for _ in range(RECOVERY_CODES))


def recovery_code(text: str) -> str | None:
    """A recovery code in the one spelling that is hashed; None for what is none."""
    code = typed(text).translate(str.maketrans("OIL", "011"))
    return code if len(code) == RECOVERY_LENGTH and set(code) <= set(RECOVERY_ALPHABET) else None


def new_mail_code() -> str:
    """Eight digits, every one of the 10⁸ as likely as any other."""
    return f"{secrets.randbelow(10**MAIL_DIGITS):0{MAIL_DIGITS}}"


def typed(text: str) -> str:
    """A code without what people put in between, in upper case."""
    return text.replace(" ", "").replace("-", "").upper()


def _new_recovery_code() -> str:
    code = "".join(secrets.choice(RECOVERY_ALPHABET) for _ in range(RECOVERY_LENGTH))
    return "-".join(code[start : start + GROUP] for start in range(0, RECOVERY_LENGTH, GROUP))
