"""Outboxes that several relays share, parked messages, and a saga whose every step can be taken back.

A relay takes whole buckets: a subject's events are all in one, so no two relays ever tell them at the same time.
"""

from alembic import op

from showcase.migrations.versions.v0003_orders_and_messages import SERVICES

revision = "0005"
down_revision = "0004"

BUCKETS = 64
OUTBOXES = ("public", *SERVICES)
SUBJECT_KEY = "hashtextextended(coalesce({row}.attributes ->> 'subject', {row}.attributes ->> 'id', ''), 0)"
PLACE = f"""
    CREATE FUNCTION public.place_in_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.subject_key := {SUBJECT_KEY.format(row="NEW")};
        NEW.bucket := abs(NEW.subject_key % {BUCKETS});
        RETURN NEW;
    END $$
"""
"""A trigger, since generated columns are computed again by every update: two thirds of what marking a message cost."""

HANDLED = """
    SELECT parked_id::text AS id, parked_id, NULL::text AS outbox, NULL::bigint AS position, queue, event_id, type,
        subject, reason, attempts, replays, parked_at, state, settled_at, attributes, headers, body
    FROM messaging.parked
"""
"""What consumers could not handle."""


def unpublished(schema: str) -> str:
    """What the relay could not publish from an outbox, in the same columns."""
    return f"""
        SELECT 'outbox:{schema}:' || position, NULL, '{schema}', position, 'outbox:{schema}',
            coalesce(attributes ->> 'id', ''), coalesce(attributes ->> 'type', ''),
            coalesce(attributes ->> 'subject', ''), coalesce(parked_reason, ''), 0,
            coalesce((headers ->> 'x-replays')::integer, 0), parked_at, 'parked', NULL, attributes, headers, body
        FROM {schema}.outbox WHERE parked_at IS NOT NULL
    """  # noqa: S608 - names from above


def upgrade() -> None:
    op.execute(PLACE)
    for schema in OUTBOXES:
        share_outbox(schema)
    op.execute("""
        CREATE SCHEMA messaging;
        CREATE TABLE messaging.parked (
            parked_id uuid PRIMARY KEY,
            queue text NOT NULL,
            event_id text NOT NULL,
            type text NOT NULL,
            subject text NOT NULL,
            reason text NOT NULL,
            attempts integer NOT NULL,
            replays integer NOT NULL,
            attributes jsonb NOT NULL,
            headers jsonb NOT NULL,
            body bytea NOT NULL,
            parked_at timestamptz NOT NULL DEFAULT now(),
            state text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'replayed', 'discarded')),
            settled_at timestamptz
        );
        CREATE INDEX ON messaging.parked (parked_at, parked_id) WHERE state = 'parked';
        CREATE INDEX ON messaging.parked (queue, parked_at) WHERE state = 'parked';
        CREATE INDEX ON messaging.parked (settled_at) WHERE state <> 'parked';
        CREATE TABLE messaging.actions (
            action_id uuid PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            action text NOT NULL CHECK (action IN ('replay', 'discard')),
            parked_id text NOT NULL,
            reason text NOT NULL
        );
        CREATE INDEX ON messaging.actions (at);
        CREATE INDEX ON messaging.actions (parked_id, action_id);
        ALTER TABLE messaging.actions REPLICA IDENTITY FULL;
    """)
    op.execute(f"CREATE VIEW messaging.all_parked AS {' UNION ALL '.join((HANDLED, *map(unpublished, OUTBOXES)))}")
    op.execute("""
        ALTER TABLE orders DROP CONSTRAINT orders_status_check;
        ALTER TABLE orders ADD CONSTRAINT orders_status_check
            CHECK (status IN ('placed', 'paid', 'reserved', 'packed', 'cancelling', 'refused'));
        ALTER TABLE orders ADD reason text NOT NULL DEFAULT '';
        UPDATE orders SET reason = 'payment declined' WHERE status = 'refused';
        CREATE TABLE order_steps (
            order_id uuid NOT NULL REFERENCES orders ON DELETE CASCADE,
            version integer NOT NULL,
            status text NOT NULL,
            reason text NOT NULL,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            cause text NOT NULL,
            PRIMARY KEY (order_id, version)
        );
        INSERT INTO order_steps (order_id, version, status, reason, cause)
            SELECT order_id, version, status, reason, '' FROM orders;

        DROP INDEX payment.charges_order_id_idx;
        ALTER TABLE payment.charges ADD UNIQUE (order_id);
        CREATE TABLE payment.decisions (
            order_id uuid PRIMARY KEY,
            state text NOT NULL CHECK (state IN ('charged', 'declined', 'refunded', 'void')),
            decided_at timestamptz NOT NULL DEFAULT now()
        );
        INSERT INTO payment.decisions (order_id, state)
            SELECT order_id, 'charged' FROM payment.charges
            UNION ALL SELECT order_id, 'declined' FROM orders WHERE status = 'refused';
        CREATE TABLE payment.refunds (
            refund_id uuid PRIMARY KEY,
            order_id uuid NOT NULL UNIQUE REFERENCES payment.charges (order_id),
            total_cents bigint NOT NULL,
            refunded_at timestamptz NOT NULL DEFAULT now()
        );
        ALTER TABLE payment.refunds REPLICA IDENTITY FULL;
        CREATE TABLE stock.shelves (
            product_id bigint PRIMARY KEY,
            pieces bigint NOT NULL CHECK (pieces >= 0)
        );
        CREATE TABLE stock.reservations (
            order_id uuid PRIMARY KEY,
            state text NOT NULL CHECK (state IN ('reserved', 'short', 'packed', 'released', 'void')),
            changed_at timestamptz NOT NULL DEFAULT now()
        );
        INSERT INTO stock.reservations (order_id, state) SELECT DISTINCT order_id, 'packed' FROM stock.picks;
        ALTER TABLE notice.notices ADD UNIQUE (order_id);
    """)
    for service in ("payment", "stock"):
        role = f"showcase_{service}"
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {service} TO {role}")


def share_outbox(schema: str) -> None:
    """What several relays need to work on one outbox, and what becomes of a message that cannot be published."""
    op.execute(f"""
        ALTER TABLE {schema}.inbox ALTER event_id TYPE text;
        DROP INDEX {schema}.outbox_position_idx;
        ALTER TABLE {schema}.outbox
            ADD subject_key bigint,
            ADD bucket smallint,
            ADD exchange text NOT NULL DEFAULT 'events',
            ADD routing_key text NOT NULL DEFAULT '',
            ADD headers jsonb NOT NULL DEFAULT '{{}}',
            ADD added_at timestamptz NOT NULL DEFAULT now(),
            ADD parked_at timestamptz,
            ADD parked_reason text;
        UPDATE {schema}.outbox SET routing_key = attributes ->> 'type',
            subject_key = {SUBJECT_KEY.format(row="outbox")};
        UPDATE {schema}.outbox SET bucket = abs(subject_key % {BUCKETS});
        ALTER TABLE {schema}.outbox ALTER exchange DROP DEFAULT, ALTER routing_key DROP DEFAULT,
            ALTER subject_key SET NOT NULL, ALTER bucket SET NOT NULL;
        CREATE TRIGGER place BEFORE INSERT ON {schema}.outbox
            FOR EACH ROW EXECUTE FUNCTION public.place_in_outbox();
        CREATE INDEX outbox_waiting ON {schema}.outbox (bucket, position)
            WHERE published_at IS NULL AND parked_at IS NULL;
        CREATE INDEX outbox_subjects ON {schema}.outbox (subject_key, position)
            WHERE published_at IS NULL AND parked_at IS NULL;
        CREATE INDEX outbox_parked ON {schema}.outbox (position) WHERE parked_at IS NOT NULL;
        ALTER TABLE {schema}.outbox SET (
            autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.01,
            autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 0.01
        );
        CREATE TABLE {schema}.outbox_buckets (bucket smallint PRIMARY KEY);
        INSERT INTO {schema}.outbox_buckets SELECT generate_series(0, {BUCKETS - 1});
    """)  # noqa: S608 - names from above


def downgrade() -> None:
    op.execute("""
        DROP TABLE stock.reservations, stock.shelves, payment.refunds, payment.decisions, order_steps;
        ALTER TABLE notice.notices DROP CONSTRAINT notices_order_id_key;
        ALTER TABLE payment.charges DROP CONSTRAINT charges_order_id_key;
        CREATE INDEX ON payment.charges (order_id);
        UPDATE orders SET status = 'paid' WHERE status = 'reserved';
        UPDATE orders SET status = 'refused' WHERE status = 'cancelling';
        ALTER TABLE orders DROP reason;
        ALTER TABLE orders DROP CONSTRAINT orders_status_check;
        ALTER TABLE orders ADD CONSTRAINT orders_status_check
            CHECK (status IN ('placed', 'paid', 'packed', 'refused'));
        DROP SCHEMA messaging CASCADE;
    """)
    for schema in OUTBOXES:
        op.execute(f"""
            DROP TABLE {schema}.outbox_buckets;
            DROP TRIGGER place ON {schema}.outbox;
            DROP INDEX {schema}.outbox_waiting, {schema}.outbox_subjects, {schema}.outbox_parked;
            ALTER TABLE {schema}.outbox DROP subject_key, DROP bucket, DROP exchange, DROP routing_key,
                DROP headers, DROP added_at, DROP parked_at, DROP parked_reason;
            ALTER TABLE {schema}.outbox RESET (autovacuum_vacuum_threshold, autovacuum_vacuum_scale_factor,
                autovacuum_analyze_threshold, autovacuum_analyze_scale_factor);
            CREATE INDEX ON {schema}.outbox (position) WHERE published_at IS NULL;
            DELETE FROM {schema}.inbox WHERE event_id !~ '^[0-9a-f-]{{36}}$';
            ALTER TABLE {schema}.inbox ALTER event_id TYPE uuid USING event_id::uuid;
        """)  # noqa: S608 - names from above
    op.execute("DROP FUNCTION public.place_in_outbox()")
