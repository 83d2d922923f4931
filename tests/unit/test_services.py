"""What the services take and tell; notice and its mail server: what is refused for good, for now, or not at all."""

import smtplib
from datetime import timedelta
from typing import Any, Self, cast

import pytest

from showcase.composition import CONSUMERS, QUEUES
from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Handlers, is_permanent
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from showcase.services import notice, payment, stock
from showcase.services.notice import NoAddress, Notice
from showcase.shop import application as shop
from tests.fakes import settings_of
from tests.sagas import Post

ORDER = {"order_id": "0199b2f0-0000-7000-8000-000000000001", "household_id": 7, "total_cents": 199}
UNUSED = cast("Database", None)


def a_notice() -> Notice:
    return Notice(database=UNUSED, mail_url="smtp://a:b@127.0.0.1:1", domain="shop.test")


def a_payment() -> payment.Payment:
    return payment.Payment(database=UNUSED, events=Post(), latency=timedelta(0), limit_cents=0)


def a_stock() -> stock.Stock:
    return stock.Stock(database=UNUSED, events=Post(), shelf_pieces=0)


# -- contracts


@pytest.mark.parametrize(
    ("takes", "handlers"),
    [
        (payment.TAKES, a_payment().handlers()),
        (stock.TAKES, a_stock().handlers()),
        (notice.TAKES, a_notice().handlers()),
    ],
    ids=["payment", "stock", "notice"],
)
def test_a_service_takes_what_it_handles(takes: tuple[str, ...], handlers: Handlers) -> None:
    assert takes == handlers.types


def test_stock_handles_one_order_a_transaction_else_two_workers_would_deadlock() -> None:
    resources = Resources(settings_of({"SHOWCASE_STOCK_POSTGRES_URL": "postgresql://a:b@127.0.0.1:1/c"}))
    assert CONSUMERS["stock"](resources).batch == 1


def test_whatever_is_taken_is_told_by_somebody_and_no_two_tell_the_same() -> None:
    told = [*shop.TELLS, *payment.TELLS, *stock.TELLS, *notice.TELLS]
    taken = {type_ for queue in QUEUES for type_ in queue.types if "#" not in type_}
    assert len(set(told)) == len(told)
    assert taken - {"shop.order.refused.v1"} == set(told)  # which was told formerly


# -- notice


def message(type_: str, **data: object) -> tuple[dict[str, str], bytes]:
    event = Event(type=type_, source="/shop", subject="orders/1", data=ORDER | data)
    return event.attributes(), event.body()


@pytest.mark.parametrize(
    ("reason", "words"), [("payment declined", "declined"), ("out of stock", "out of stock"), ("overdue", "in time")]
)
def test_a_household_is_told_why_its_order_was_refused(reason: str, words: str) -> None:
    task = a_notice().handlers().read(*message("shop.order.refused.v2", reason=reason))
    assert isinstance(task.data, notice.RefusedOrder)
    assert words in task.data.words


def test_a_reason_that_is_not_known_yet_is_left_out() -> None:
    task = a_notice().handlers().read(*message("shop.order.refused.v2", reason="the shop has burnt down"))
    assert isinstance(task.data, notice.RefusedOrder)
    assert task.data.words == notice.REFUSED_OTHERWISE


def test_a_refused_order_of_version_1_is_read_as_declined() -> None:
    task = a_notice().handlers().read(*message("shop.order.refused.v1"))
    assert task.event.type == "shop.order.refused.v2"
    assert isinstance(task.data, notice.RefusedOrder)
    assert task.data.words == notice.REFUSED["payment declined"]


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

    def send_message(self, _: Any, *, to_addrs: list[str]) -> None:
        if self.error:
            raise self.error


REFUSED = {code: smtplib.SMTPRecipientsRefused({"household-7@shop.test": (code, b"no")}) for code in (450, 550)}


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (REFUSED[550], NoAddress),
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
    with pytest.raises(raised) as caught:
        a_notice()._send("household-7@shop.test", "Your order is packed.", "1")
    assert is_permanent(caught.value) == (raised is NoAddress)


def test_a_mail_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        a_notice()._send("household-7@shop.test", "Your order is packed.", "1")
