"""Orders and products in PostgreSQL."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from showcase.platform.database import Database
from showcase.shop.application import CHANGEABLE, OrderSummary, Overtaken, Product, Step
from showcase.shop.domain import (
    HouseholdId,
    Line,
    Order,
    OrderId,
    ProductId,
    Reason,
    Status,
    UnknownHousehold,
    UnknownProduct,
)


class SqlOrders:
    """See `application.Orders`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, order: Order) -> None:
        lines = {
            "order_id": order.id,
            "products": [line.product_id for line in order.lines],
            "quantities": [line.quantity for line in order.lines],
            "totals": [line.total_cents for line in order.lines],
        }
        async with self._database.transaction() as db:
            if unknown := (await db.execute(_UNKNOWN, {"products": lines["products"]})).scalars().all():
                raise UnknownProduct(f"the catalogue has no product {unknown[0]}", product_ids=list(unknown))
            row = {
                **_step(order, cause=""),
                "household_id": order.household_id,
                "reference": order.reference,
                "line_count": len(order.lines),
                "total_cents": order.total_cents,
                "placed_at": order.placed_at,
            }
            if (await db.execute(_ADD, row)).one_or_none() is None:
                raise UnknownHousehold(f"there is no household {order.household_id}")
            await db.execute(_ADD_LINES, lines)

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        async with self._database.transaction() as db:
            row = (await db.execute(_FIND_TO_CHANGE if to_change else _FIND, {"order_id": order_id})).one_or_none()
            if row is None:
                return None
            lines = (await db.execute(_LINES, {"order_id": order_id})).all()
        return _order(order_id, row, lines)

    async def all(self, at_once: int) -> AsyncIterator[Sequence[Order]]:
        """See `application.views.AllOrders`. No transaction is open while they are handled."""
        after = UUID(int=0)
        while True:
            async with self._database.transaction() as db:
                rows = (await db.execute(_ALL, {"after": after, "limit": at_once})).all()
                lines = (await db.execute(_ALL_LINES, {"order_ids": [row.order_id for row in rows]})).all()
            if not rows:
                return
            after = rows[-1].order_id
            of_order: dict[UUID, list[Any]] = {row.order_id: [] for row in rows}
            for line in lines:
                of_order[line.order_id].append(line)
            yield [_order(row.order_id, row, of_order[row.order_id]) for row in rows]

    async def save_step(self, order: Order, cause: str) -> None:
        async with self._database.transaction() as db:
            await db.execute(_SAVE_STEP, _step(order, cause))

    async def steps(self, order_id: OrderId) -> Sequence[Step]:
        async with self._database.transaction() as db:
            rows = (await db.execute(_STEPS, {"order_id": order_id})).all()
        return [
            Step(version=x.version, status=Status(x.status), reason=Reason(x.reason), at=x.at, cause=x.cause)
            for x in rows
        ]

    async def of_household(
        self, household_id: HouseholdId, before: OrderId | None, limit: int
    ) -> Sequence[OrderSummary]:
        names = {"household_id": household_id, "before": before, "limit": limit}
        async with self._database.transaction() as db:
            return [_summary(row) for row in (await db.execute(_OF_HOUSEHOLD, names)).all()]

    async def owner(self, order_id: OrderId) -> HouseholdId | None:
        async with self._database.transaction() as db:
            owner: HouseholdId | None = (await db.execute(_OWNER, {"order_id": order_id})).scalar_one_or_none()
            return owner


class SqlHouseholds:
    """Households that come new, besides those that the data knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self) -> int:
        """A household of whom nothing is known yet: its number."""
        async with self._database.transaction() as db:
            number: int = (await db.execute(_NEW_HOUSEHOLD)).scalar_one()
            return number


class SqlProducts:
    """See `application.Products`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, product_id: ProductId) -> Product | None:
        async with self._database.transaction() as db:
            row = (await db.execute(_PRODUCT, {"product_id": product_id})).one_or_none()
        return None if row is None else _product(row)

    async def find_many(self, product_ids: Sequence[ProductId]) -> Mapping[ProductId, Product]:
        async with self._database.transaction() as db:
            rows = (await db.execute(_PRODUCTS, {"product_ids": list(product_ids)})).all()
        return {product.product_id: product for product in map(_product, rows)}

    async def change(
        self, product_id: ProductId, changes: Mapping[str, str | None], if_version: int | None = None
    ) -> Product | None:
        columns = ", ".join(f"{name} = :{name}" for name in sorted(CHANGEABLE & changes.keys()))
        names = {**changes, "product_id": product_id, "if_version": if_version}
        async with self._database.transaction() as db:
            # Of two at once the later one waits here, and then compares the version that the first one has made.
            row = (await db.execute(text(_CHANGE.format(columns=columns)), names)).one_or_none()
            if row is not None:
                return _product(row)
            if if_version is not None and (found := await self.find(product_id)):
                raise Overtaken(f"product {product_id} is of version {found.version} by now, not {if_version}: read it")
            return None


def _product(row: Row[Any]) -> Product:
    return Product(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def _order(order_id: OrderId, row: Row[Any], lines: Sequence[Any]) -> Order:
    return Order(
        id=order_id,
        household_id=row.household_id,
        reference=row.reference,
        lines=[Line(product_id=x.product_id, quantity=x.quantity, total_cents=x.total_cents) for x in lines],
        placed_at=row.placed_at,
        status=Status(row.status),
        version=row.version,
        reason=Reason(row.reason),
    )


def _step(order: Order, cause: str) -> dict[str, object]:
    return {
        "order_id": order.id,
        "version": order.version,
        "status": order.status,
        "reason": order.reason,
        "cause": cause,
    }


def _summary(row: Row[tuple[object, ...]]) -> OrderSummary:
    columns = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    words = {"status": Status(str(columns["status"])), "reason": Reason(str(columns["reason"]))}
    return OrderSummary(**columns | words)


_UNKNOWN = text("""
    SELECT DISTINCT wanted FROM unnest(CAST(:products AS bigint[])) AS wanted
    WHERE NOT EXISTS (SELECT FROM products WHERE product_id = wanted) ORDER BY wanted LIMIT 20
""")
_ADD = text("""
    WITH added AS (
        INSERT INTO orders
            (order_id, household_id, reference, status, version, reason, line_count, total_cents, placed_at)
        SELECT :order_id, :household_id, :reference, :status, :version, :reason, :line_count, :total_cents, :placed_at
        WHERE EXISTS (SELECT FROM households WHERE household_id = :household_id)
        RETURNING order_id, version, status, reason
    )
    INSERT INTO order_steps (order_id, version, status, reason, cause)
    SELECT order_id, version, status, reason, :cause FROM added RETURNING order_id
""")
_ADD_LINES = text("""
    INSERT INTO order_lines (order_id, line, product_id, quantity, total_cents)
    SELECT :order_id, line, product_id, quantity, total_cents
    FROM unnest(CAST(:products AS bigint[]), CAST(:quantities AS int[]), CAST(:totals AS bigint[]))
        WITH ORDINALITY AS lines (product_id, quantity, total_cents, line)
""")
_FIND = text("""
    SELECT household_id, reference, status, version, reason, placed_at FROM orders WHERE order_id = :order_id
""")
_FIND_TO_CHANGE = text(f"{_FIND.text} FOR UPDATE")
_LINES = text("SELECT product_id, quantity, total_cents FROM order_lines WHERE order_id = :order_id ORDER BY line")
_ALL = text("""
    SELECT order_id, household_id, reference, status, version, reason, placed_at FROM orders
    WHERE order_id > :after ORDER BY order_id LIMIT :limit
""")
_ALL_LINES = text("""
    SELECT order_id, product_id, quantity, total_cents FROM order_lines
    WHERE order_id = ANY(:order_ids) ORDER BY order_id, line
""")
_SAVE_STEP = text("""
    WITH moved AS (
        UPDATE orders SET status = :status, version = :version, reason = :reason WHERE order_id = :order_id
        RETURNING order_id, version, status, reason
    )
    INSERT INTO order_steps (order_id, version, status, reason, cause)
    SELECT order_id, version, status, reason, :cause FROM moved
""")
_STEPS = text("""
    SELECT version, status, reason, at, cause FROM order_steps WHERE order_id = :order_id ORDER BY version
""")
_OWNER = text("SELECT household_id FROM orders WHERE order_id = :order_id")
_OF_HOUSEHOLD = text("""
    SELECT order_id, household_id, reference, status, version, line_count, total_cents, placed_at, reason FROM orders
    WHERE household_id = :household_id AND (CAST(:before AS uuid) IS NULL OR order_id < CAST(:before AS uuid))
    ORDER BY order_id DESC LIMIT :limit
""")
_COLUMNS = "product_id, department, brand, category, type, package_size, version"
_PRODUCT = text(f"SELECT {_COLUMNS} FROM products WHERE product_id = :product_id")  # noqa: S608 - names from above
_PRODUCTS = text(f"SELECT {_COLUMNS} FROM products WHERE product_id = ANY(:product_ids)")  # noqa: S608 - the same
_CHANGE = f"""
    UPDATE products SET {{columns}} WHERE product_id = :product_id
        AND (CAST(:if_version AS bigint) IS NULL OR version = :if_version) RETURNING {_COLUMNS}
"""  # noqa: S608 - the same
_NEW_HOUSEHOLD = text("""
    INSERT INTO households (household_id) VALUES (nextval('new_households')) RETURNING household_id
""")
