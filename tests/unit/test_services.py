"""Notice and its mail server: what is refused for good, for now, or not at all."""

import smtplib
from typing import Any, Self, cast

import pytest

from showcase.kernel.errors import Unavailable
from showcase.platform.database import Database
from showcase.services.notice import Notice
from tests.fakes_messaging import Memory, MemoryInbox


def notice() -> Notice:
    unused = cast("Database", None)
    return Notice(database=unused, inbox=MemoryInbox(Memory()), mail_url="smtp://a:b@127.0.0.1:1", domain="shop.test")


class Refusing:
    """A mail server's client, as smtplib has it."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __call__(self, *_: object, **__: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def login(self, *_: object) -> None: ...

    def send_message(self, _: Any) -> None:
        if self.error:
            raise self.error


REFUSED = {code: smtplib.SMTPRecipientsRefused({"household-7@shop.test": (code, b"no")}) for code in (450, 550)}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (REFUSED[550], smtplib.SMTPRecipientsRefused),
        (REFUSED[450], Unavailable),
        (smtplib.SMTPServerDisconnected("gone"), Unavailable),
        (smtplib.SMTPAuthenticationError(535, b"no"), Unavailable),
        (TimeoutError(), Unavailable),
    ],
)
def test_only_a_household_without_an_address_is_given_up(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    monkeypatch.setattr(smtplib, "SMTP", Refusing(error))
    with pytest.raises(raised):
        notice()._send("household-7@shop.test", "Your order is packed.", "1")


def test_a_mail_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        notice()._send("household-7@shop.test", "Your order is packed.", "1")
