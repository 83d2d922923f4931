"""An order as two calls in a row, to payment and then to stock, and no way back: what a saga is there for.

Each of the two keeps its own books, in a transaction of its own; the shop calls one after the other. The tables are
this module's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import psycopg
from psycopg import errors

WITHIN_S = 10


@dataclass(frozen=True, slots=True)
class InARow:
    """Payment and stock, each behind a connection of its own, as two services would be."""

    payment: psycopg.Connection
    stock: psycopg.Connection

    def place(self, basket_id: int, lines: pd.DataFrame) -> None:
        """Take the money for a basket, then its goods. Raises OutOfStock: then the money is gone all the same."""
        self.charge(basket_id, int(lines.total_cents.sum()))
        wanted = lines.groupby("product_id").quantity.sum()
        self.take(basket_id, dict(zip(wanted.index.tolist(), wanted.tolist(), strict=True)))

    def charge(self, basket_id: int, cents: int) -> None:
        with self.payment.transaction():
            self.payment.execute("INSERT INTO in_a_row.charges VALUES (%s, %s)", (basket_id, cents))

    def take(self, basket_id: int, wanted: dict[int, int]) -> None:
        try:
            with self.stock.transaction():
                for product_id, pieces in wanted.items():
                    self.stock.execute(_TAKE, (pieces, product_id))
                self.stock.execute("INSERT INTO in_a_row.packed VALUES (%s)", (basket_id,))
        except errors.CheckViolation as error:
            raise OutOfStock(f"something in the basket {basket_id} is out of stock") from error


class OutOfStock(Exception):
    """A shelf holds less than a basket wants."""


@contextmanager
def opened(url: str, lines: pd.DataFrame, shelf_pieces: int) -> Iterator[InARow]:
    """Both services, with empty books, and a shelf for each product of some baskets.

    Args:
        shelf_pieces: what each shelf holds.

    Raises psycopg.Error.
    """
    with (
        psycopg.connect(url, connect_timeout=WITHIN_S, autocommit=True) as payment,
        psycopg.connect(url, connect_timeout=WITHIN_S, autocommit=True) as stock,
    ):
        payment.execute(_TABLES)
        shelves = (lines.product_id.unique().tolist(), shelf_pieces)
        stock.execute("INSERT INTO in_a_row.shelves SELECT unnest(%s::bigint[]), %s", shelves)
        yield InARow(payment, stock)


def place_all(url: str, lines: pd.DataFrame, shelf_pieces: int) -> pd.DataFrame:
    """Place some baskets, one after the other; what the books of both services say of each.

    Returns one row a basket, in order: `paid_cents`, `packed`. Raises psycopg.Error.
    """
    with opened(url, lines, shelf_pieces) as shop:
        for basket_id, of_basket in lines.groupby("basket_id", sort=False):
            try:
                shop.place(int(str(basket_id)), of_basket)
            except OutOfStock:
                continue  # the shop tells the household so, and goes on
        paid: dict[int, int] = dict(shop.payment.execute("SELECT * FROM in_a_row.charges").fetchall())
        packed = {basket_id for (basket_id,) in shop.stock.execute("SELECT * FROM in_a_row.packed")}
    baskets = lines.basket_id.unique().tolist()
    rows = [(paid.get(basket, 0), basket in packed) for basket in baskets]
    return pd.DataFrame(rows, columns=["paid_cents", "packed"], index=pd.Index(baskets, name="basket_id"))


_TABLES = """
    DROP SCHEMA IF EXISTS in_a_row CASCADE;
    CREATE SCHEMA in_a_row;
    CREATE TABLE in_a_row.charges (basket_id bigint PRIMARY KEY, cents bigint NOT NULL);
    CREATE TABLE in_a_row.packed (basket_id bigint PRIMARY KEY);
    CREATE TABLE in_a_row.shelves (product_id bigint PRIMARY KEY, pieces bigint NOT NULL CHECK (pieces >= 0));
"""
_TAKE = "UPDATE in_a_row.shelves SET pieces = pieces - %s WHERE product_id = %s"
