"""What the benchmark of documents keeps: a sale, a sale with a Decimal, and the shop's view of an order with lines.

Each as ours, as Beanie's and as a dict: the same fields, and the same in MongoDB but for what counts the changes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import beanie
from bson.decimal128 import Decimal128
from pydantic import BaseModel

from showcase.documents import Document, Moment
from showcase.kernel.ids import new_uuid
from showcase.shop.application.views import LineView, OrderView
from showcase.shop.domain import Reason, Status

LINES = 10
PLACED_AT = datetime(2017, 12, 23, 9, 30, 15, 250_000, UTC)


class Sale(Document):
    """Flat: as ours."""

    id: UUID
    reference: str
    household_id: int
    store_id: int
    status: Status
    reason: Reason
    line_count: int
    total_cents: int
    placed_at: Moment


class Weighed(Sale):
    """With a Decimal."""

    kilograms: Decimal


class BeanieSale(beanie.Document):
    """As Beanie's: a revision, new with each change, is its version."""

    id: UUID  # type: ignore[assignment]  # by default it is an ObjectId that MongoDB's driver makes
    reference: str
    household_id: int
    store_id: int
    status: Status
    reason: Reason
    line_count: int
    total_cents: int
    placed_at: datetime

    class Settings:
        name = "beanie_sales"
        use_revision = True


class BeanieWeighed(BeanieSale):
    """With a Decimal."""

    kilograms: beanie.DecimalAnnotation

    class Settings:
        name = "beanie_weighed"
        use_revision = True


class BeanieLine(BaseModel):
    """A line: Beanie stores no dataclasses, which ours are."""

    product_id: int
    quantity: int
    total_cents: int


class BeanieOrder(beanie.Document):
    """The view of an order."""

    id: UUID  # type: ignore[assignment]  # as above
    household_id: int
    reference: str
    status: Status
    reason: Reason
    total_cents: int
    placed_at: datetime
    lines: list[BeanieLine]

    class Settings:
        name = "beanie_orders"
        use_revision = True


@dataclass(frozen=True, slots=True)
class Kind:
    """Documents of one shape.

    Attributes:
        fields: makes those of a new document, by their names in Python.
    """

    name: str
    ours: type[Document]
    beanies: type[beanie.Document]
    fields: Callable[[], dict[str, Any]]

    def new(self) -> Document:
        """One of ours."""
        return self.ours(**self.fields())

    def new_of_beanie(self) -> beanie.Document:
        """The same as Beanie's."""
        fields = self.fields()
        if "lines" in fields:
            fields["lines"] = [BeanieLine(**asdict(line)) for line in fields["lines"]]
        return self.beanies(**fields)

    def new_dict(self) -> dict[str, Any]:
        """The same as the driver takes it and gives it back: of the types of BSON."""
        fields = self.fields()
        fields |= {"status": str(fields["status"]), "reason": str(fields["reason"])}
        if "kilograms" in fields:
            fields["kilograms"] = Decimal128(fields["kilograms"])
        if "lines" in fields:
            fields["lines"] = [asdict(line) for line in fields["lines"]]
        return {"_id": fields.pop("id"), "version": 1, **fields}


def _sale() -> dict[str, Any]:
    id_ = new_uuid()
    number = id_.int % 10**9
    return {
        "id": id_,
        "reference": f"basket {number}",
        "household_id": number % 2_469,
        "store_id": number % 500,
        "status": Status.PLACED,
        "reason": Reason.NONE,
        "line_count": number % 40,
        "total_cents": number % 10_000,
        "placed_at": PLACED_AT,
    }


def _weighed() -> dict[str, Any]:
    sale = _sale()
    return {**sale, "kilograms": Decimal(sale["total_cents"]) / 1_000}


def _order() -> dict[str, Any]:
    order = _sale()
    first = order["household_id"]
    del order["store_id"], order["line_count"]
    return {**order, "lines": tuple(LineView(first + line, line + 1, 100 * line + 99) for line in range(LINES))}


FLAT = Kind("flat", Sale, BeanieSale, _sale)
DECIMAL = Kind("with a Decimal", Weighed, BeanieWeighed, _weighed)
ORDER = Kind(f"with {LINES} lines", OrderView, BeanieOrder, _order)
