"""The books of shop, payment and stock, each kept by itself, side by side: for lessons about orders."""

import pandas as pd

from workshop.lab.lab import Lab

WORKERS = ("payment", "stock", "shop")
"""Those that an order goes through."""


def story(lab: Lab, order_id: str) -> pd.DataFrame:
    """All events of an order, whoever told them, the earliest first: `id`, `type`, `cause` (an id, or empty)."""
    return lab.sql(_STORY, subject=f"orders/{order_id}")


def unfinished(lab: Lab) -> int:
    """How much is still on its way: orders that have not ended, events in outboxes, messages for `WORKERS`.

    Alarms that wait for their time are none of it.
    """
    return int(lab.sql(_UNFINISHED).n[0]) or int(lab.queues().ready[list(WORKERS)].sum())


ORDERS = """
    SELECT order_id::text, reference, status, placed_at, ended_at, coalesce(charges, 0)::int AS charges,
        coalesce(charged, 0)::int AS charged_cents, coalesce(refunded, 0)::int AS refunded_cents,
        coalesce(picked, 0)::int AS picked
    FROM orders
    LEFT JOIN (
        SELECT order_id, max(at) AS ended_at FROM order_steps WHERE status IN ('packed', 'refused') GROUP BY order_id
    ) AS ends USING (order_id)
    LEFT JOIN (
        SELECT order_id, count(*) AS charges, sum(total_cents) AS charged FROM payment.charges GROUP BY order_id
    ) AS charges USING (order_id)
    LEFT JOIN (SELECT order_id, sum(total_cents) AS refunded FROM payment.refunds GROUP BY order_id) AS refunds
        USING (order_id)
    LEFT JOIN (SELECT order_id, sum(quantity) AS picked FROM stock.picks GROUP BY order_id) AS picks USING (order_id)
    ORDER BY placed_at
"""
"""One row an order: what the shop, payment and stock say of it, each in tables of its own."""
_STORY = """
    SELECT attributes ->> 'id' AS id, attributes ->> 'type' AS type, coalesce(attributes ->> 'causationid', '') AS cause
    FROM (
        SELECT attributes FROM outbox UNION ALL SELECT attributes FROM payment.outbox
        UNION ALL SELECT attributes FROM stock.outbox
    ) AS told
    WHERE attributes ->> 'subject' = %(subject)s ORDER BY (attributes ->> 'time')::timestamptz, id
"""
_UNFINISHED = """
    SELECT (SELECT count(*) FROM orders WHERE status NOT IN ('packed', 'refused'))
        + (SELECT count(*) FROM outbox WHERE published_at IS NULL AND parked_at IS NULL)
        + (SELECT count(*) FROM payment.outbox WHERE published_at IS NULL AND parked_at IS NULL)
        + (SELECT count(*) FROM stock.outbox WHERE published_at IS NULL AND parked_at IS NULL) AS n
"""
