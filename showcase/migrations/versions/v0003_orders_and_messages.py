"""Orders, answers that are kept for requests sent twice, and for each service a schema with its outbox and inbox.

A service's role has rights in its own schema and nowhere else.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

SERVICES = ("payment", "stock", "notice")


def upgrade() -> None:
    op.execute("""
        CREATE TABLE orders (
            order_id uuid PRIMARY KEY,
            household_id bigint NOT NULL REFERENCES households,
            reference text NOT NULL,
            status text NOT NULL CHECK (status IN ('placed', 'paid', 'packed', 'refused')),
            version integer NOT NULL,
            line_count integer NOT NULL,
            total_cents bigint NOT NULL,
            placed_at timestamptz NOT NULL
        );
        CREATE INDEX ON orders (household_id, order_id DESC);
        CREATE TABLE order_lines (
            order_id uuid NOT NULL REFERENCES orders ON DELETE CASCADE,
            line integer NOT NULL,
            product_id bigint NOT NULL REFERENCES products,
            quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
            total_cents bigint NOT NULL CHECK (total_cents >= 0),
            PRIMARY KEY (order_id, line)
        );
        ALTER TABLE orders REPLICA IDENTITY FULL;
        ALTER TABLE order_lines REPLICA IDENTITY FULL;

        CREATE TABLE idempotency_keys (
            principal text NOT NULL,
            key text NOT NULL,
            fingerprint bytea NOT NULL,
            status smallint NOT NULL,
            headers jsonb NOT NULL,
            body bytea NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (principal, key)
        );
        CREATE INDEX ON idempotency_keys (expires_at);
    """)
    messages("public")
    for service in SERVICES:
        op.execute(f"CREATE SCHEMA {service}")
        messages(service)
    op.execute("""
        CREATE TABLE payment.charges (
            charge_id uuid PRIMARY KEY,
            order_id uuid NOT NULL,
            total_cents bigint NOT NULL,
            charged_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ON payment.charges (order_id);
        CREATE TABLE stock.picks (
            order_id uuid NOT NULL,
            product_id bigint NOT NULL,
            quantity integer NOT NULL,
            picked_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ON stock.picks (order_id);
        CREATE TABLE notice.notices (
            notice_id uuid PRIMARY KEY,
            order_id uuid NOT NULL,
            household_id bigint NOT NULL,
            text text NOT NULL,
            noticed_at timestamptz NOT NULL DEFAULT now()
        );
        ALTER TABLE payment.charges REPLICA IDENTITY FULL;
    """)
    for service in SERVICES:
        role = f"showcase_{service}"
        op.execute(f"GRANT USAGE ON SCHEMA {service} TO {role}")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {service} TO {role}")


def messages(schema: str) -> None:
    """What a service needs to tell events and to hear each one once."""
    op.execute(f"""
        CREATE TABLE {schema}.outbox (
            position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            attributes jsonb NOT NULL,
            body bytea NOT NULL,
            published_at timestamptz
        );
        CREATE INDEX ON {schema}.outbox (position) WHERE published_at IS NULL;
        CREATE INDEX ON {schema}.outbox (published_at) WHERE published_at IS NOT NULL;
        CREATE TABLE {schema}.inbox (
            consumer text NOT NULL,
            event_id uuid NOT NULL,
            handled_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, event_id)
        );
        CREATE INDEX ON {schema}.inbox (handled_at);
    """)


def downgrade() -> None:
    for service in SERVICES:
        op.execute(f"DROP SCHEMA {service} CASCADE")
    op.execute("DROP TABLE order_lines, orders, idempotency_keys, outbox, inbox")
