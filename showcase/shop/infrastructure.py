"""Orders and products in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import Row, text

from showcase.platform.database import Database
from showcase.shop.application import OrderSummary, Product
from showcase.shop.domain import HouseholdId, Line, Order, OrderId, ProductId, Status, UnknownHousehold, UnknownProduct


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
                "order_id": order.id,
                "household_id": order.household_id,
                "reference": order.reference,
                "status": order.status,
                "version": order.version,
                "line_count": len(order.lines),
                "total_cents": order.total_cents,
                "placed_at": order.placed_at,
            }
            if (await db.execute(_ADD, row)).rowcount == 0:
                raise UnknownHousehold(f"there is no household {order.household_id}")
            await db.execute(_ADD_LINES, lines)

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        async with self._database.transaction() as db:
            row = (await db.execute(_FIND_TO_CHANGE if to_change else _FIND, {"order_id": order_id})).one_or_none()
            if row is None:
                return None
            lines = (await db.execute(_LINES, {"order_id": order_id})).all()
        return Order(
            id=order_id,
            household_id=row.household_id,
            reference=row.reference,
            lines=[Line(product_id=x.product_id, quantity=x.quantity, total_cents=x.total_cents) for x in lines],
            placed_at=row.placed_at,
            status=Status(row.status),
            version=row.version,
        )

    async def save_step(self, order: Order) -> None:
        async with self._database.transaction() as db:
            await db.execute(_SAVE_STEP, {"order_id": order.id, "status": order.status, "version": order.version})

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
        return None if row is None else Product(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def _summary(row: Row[tuple[object, ...]]) -> OrderSummary:
    columns = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    return OrderSummary(**columns | {"status": Status(str(columns["status"]))})


_UNKNOWN = text("""
    SELECT DISTINCT wanted FROM unnest(CAST(:products AS bigint[])) AS wanted
    WHERE NOT EXISTS (SELECT FROM products WHERE product_id = wanted) ORDER BY wanted LIMIT 20
""")
_ADD = text("""
    INSERT INTO orders (order_id, household_id, reference, status, version, line_count, total_cents, placed_at)
    SELECT :order_id, :household_id, :reference, :status, :version, :line_count, :total_cents, :placed_at
    WHERE EXISTS (SELECT FROM households WHERE household_id = :household_id)
""")
_ADD_LINES = text("""
    INSERT INTO order_lines (order_id, line, product_id, quantity, total_cents)
    SELECT :order_id, line, product_id, quantity, total_cents
    FROM unnest(CAST(:products AS bigint[]), CAST(:quantities AS int[]), CAST(:totals AS bigint[]))
        WITH ORDINALITY AS lines (product_id, quantity, total_cents, line)
""")
_FIND = text("SELECT household_id, reference, status, version, placed_at FROM orders WHERE order_id = :order_id")
_FIND_TO_CHANGE = text(f"{_FIND.text} FOR UPDATE")
_LINES = text("SELECT product_id, quantity, total_cents FROM order_lines WHERE order_id = :order_id ORDER BY line")
_SAVE_STEP = text("UPDATE orders SET status = :status, version = :version WHERE order_id = :order_id")
_OWNER = text("SELECT household_id FROM orders WHERE order_id = :order_id")
_OF_HOUSEHOLD = text("""
    SELECT order_id, household_id, reference, status, version, line_count, total_cents, placed_at FROM orders
    WHERE household_id = :household_id AND (CAST(:before AS uuid) IS NULL OR order_id < CAST(:before AS uuid))
    ORDER BY order_id DESC LIMIT :limit
""")
_PRODUCT = text("""
    SELECT product_id, department, brand, category, type, package_size FROM products WHERE product_id = :product_id
""")
_NEW_HOUSEHOLD = text("""
    INSERT INTO households (household_id) VALUES (nextval('new_households')) RETURNING household_id
""")
