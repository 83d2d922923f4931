"""What a new password must be: long, and none of those that are tried first.

NIST SP 800-63B-4 §3.1.1.2 and OWASP ASVS 5 V6.2: no rules about digits and symbols and no change every so often,
since both make people choose worse ones. Any character will do.

The common passwords are those of 8 ASCII characters or more in the list of Django 5.2
(`django/contrib/auth/common-passwords.txt.gz`); its licence is in `common_passwords.NOTICE.txt`.
"""

import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from gzip import decompress
from importlib.resources import files
from itertools import pairwise

from showcase.kernel.errors import Invalid

MIN_LENGTH = 15
MIN_LENGTH_WITH_SECOND_FACTOR = 8
MAX_LENGTH = 128
MIN_BESIDE = 6
"""So many characters must be left when the words of the context, or a common password, are taken out."""
TRIED_AROUND = string.digits + string.punctuation + " "
"""What is put around a common password, and counts for nothing."""
SHORT_UNIT = 7
"""What repeats so few characters is a pattern."""
MIN_WORD = 4
"""Shorter words occur in any text."""
SHOP_WORDS = ("showcase", "grocery", "shop.example", "password")
RUNS = tuple(
    row * MAX_LENGTH
    for row in (string.digits, string.ascii_lowercase, "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm")
)
"""What fingers run along: digits, the alphabet, the keyboards."""


class WeakPassword(Invalid):
    """This cannot be a password here."""


def readable(text: str) -> str:
    """A password in the one spelling that is hashed: normal form C (NIST SP 800-63B-4 §3.1.1.2).

    Raises WeakPassword for what is longer than 128 characters, or is no text: NUL, half of a surrogate pair.
    """
    # Measured before as well: normalising takes quadratic time for a long run of combining marks. No character
    # of the normal form comes from more than four.
    if len(text) > 4 * MAX_LENGTH or len(password := unicodedata.normalize("NFC", text)) > MAX_LENGTH:
        raise WeakPassword(f"a password has {MAX_LENGTH} characters at the most")
    if any(character == "\0" or unicodedata.category(character) == "Cs" for character in password):
        raise WeakPassword("a password is text: without NUL, and in whole characters")
    return password


def accepted(text: str, *, email: str, minimum: int = MIN_LENGTH) -> str:
    """A new password, as it is to be hashed.

    Args:
        email: whose it is; "" where nobody knows.
        minimum: characters; a password that is not the only factor may be shorter.

    Raises WeakPassword, with what is wrong.
    """
    password = readable(text)
    if len(password) < minimum:
        raise WeakPassword(f"take {minimum} characters or more; a few words make a good password")
    lowered = password.lower()
    if _is_pattern(lowered):
        raise WeakPassword("this repeats itself or runs along the keyboard: it is tried first")
    if _is_common(lowered):
        raise WeakPassword("this is one of the most common passwords, or hardly more: it is tried first")
    if len(_without(lowered, (*SHOP_WORDS, email, email.partition("@")[0]))) < MIN_BESIDE:
        raise WeakPassword("this is little more than your address or the shop's name: it is tried first")
    return password


def _is_pattern(text: str) -> bool:
    steps = {ord(second) - ord(first) for first, second in pairwise(text)}
    if len(steps) == 1:  # aaaa, abcd, 9876
        return True
    if any(text in run or text[::-1] in run for run in RUNS):
        return True
    units = (text[:size] for size in range(1, min(len(text) // 2, SHORT_UNIT) + 1))
    return any(text == (unit * len(text))[: len(text)] for unit in units)


def _is_common(text: str) -> bool:
    ends = [
        (start, end)
        for start in range(len(text))
        for end in range(start + MIN_LENGTH_WITH_SECOND_FACTOR, len(text) + 1)
    ]
    found = {text[start:end] for start, end in ends} & _common()
    return any(len(_letters(text.replace(one, ""))) < MIN_BESIDE for one in found)


def _letters(text: str) -> str:
    return "".join(character for character in text if character not in TRIED_AROUND)


def _without(text: str, words: Sequence[str]) -> str:
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= MIN_WORD:
            text = text.replace(word, "")
    return text


@cache
def _common() -> frozenset[str]:
    packed = (files("showcase.auth.domain") / "common_passwords.txt.gz").read_bytes()
    return frozenset(decompress(packed).decode("ascii").splitlines())
