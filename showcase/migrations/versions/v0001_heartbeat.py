"""One row that Debezium touches now and then.

A replication slot can let go of old write-ahead log only after a change that it captures, so a database in
which nothing happens would hold the log of the whole cluster (Debezium's `heartbeat.action.query`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "heartbeat",
        sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1", name="heartbeat_is_one_row"), primary_key=True),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute("INSERT INTO heartbeat VALUES (1, now())")
    op.execute("ALTER TABLE heartbeat REPLICA IDENTITY FULL")


def downgrade() -> None:
    op.drop_table("heartbeat")
