"""Who changes what is audited, in the transaction of the change; and the tables of the audit itself.

Whoever acts says so in `audit.context`, a setting of the transaction. A trigger writes it down, with what the database
knows by itself, so a change that somebody makes by hand leaves a context as well: one without an actor.
"""

from alembic import op

from showcase.migrations.versions.v0002_catalogue import ROLE

revision = "0007"
down_revision = "0006"

AUDITED = (
    *("public.orders", "public.order_lines", "payment.charges", "payment.refunds"),
    *("auth.events", "messaging.actions", "audit.reads", "audit.erasures"),
)
ANCHOR_ROLE = "showcase_anchor"

# The trigger is BEFORE each statement, so in the log a context lies before the rows that it explains: a row belongs to
# the last context of its transaction that lies before it.
# `audit.written` is the context that the transaction has written last; a savepoint that is rolled back takes it back
# together with the row. (Not a condition of the trigger: the server would compile it anew for every statement.)
# `transaction_id` has no epoch, as Debezium's `source.txId` has none.
WHO = """
    CREATE FUNCTION public.audit_who() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    DECLARE
        said text := coalesce(current_setting('audit.context', true), '');
        who jsonb := '{}';
    BEGIN
        IF current_setting('audit.written', true) = '=' || said THEN
            RETURN NULL;
        END IF;
        IF said <> '' THEN
            BEGIN
                who := said;
                IF jsonb_typeof(who) <> 'object' THEN
                    RAISE data_exception;
                END IF;
            -- Whatever somebody has set there, the change itself is not to fail for it.
            EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
                who := '{"reason": "what audit.context says cannot be read"}';
            END;
        END IF;
        INSERT INTO public.audit_context (
            transaction_id, actor, session_id, request_id, reason, traceparent,
            database_user, application, client_address
        ) VALUES (
            pg_current_xact_id()::xid::text::bigint,
            nullif(left(who ->> 'actor', 200), ''),
            nullif(left(who ->> 'session_id', 100), ''),
            nullif(left(who ->> 'request_id', 256), ''),
            nullif(left(who ->> 'reason', 500), ''),
            nullif(left(who ->> 'traceparent', 100), ''),
            session_user,
            current_setting('application_name'),
            host(inet_client_addr())
        );
        PERFORM set_config('audit.written', '=' || said, true);
        RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION public.audit_who() FROM PUBLIC;
"""


def upgrade() -> None:
    op.execute("""
        CREATE TABLE public.audit_context (
            context_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            transaction_id bigint NOT NULL,
            actor text,
            session_id text,
            request_id text,
            reason text,
            traceparent text,
            database_user text NOT NULL,
            application text NOT NULL,
            client_address text,
            at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX ON public.audit_context USING brin (at);

        CREATE SCHEMA audit;

        -- Each subject's personal data is sealed with a key of its own; to erase the subject is to destroy the key.
        CREATE TABLE audit.subject_keys (
            subject text PRIMARY KEY,
            key bytea,
            created_at timestamptz NOT NULL DEFAULT now(),
            erased_at timestamptz,
            CHECK ((key IS NULL) = (erased_at IS NOT NULL))
        );

        -- Whose key was destroyed, when, by whom and why. Not whose data it was is secret, but the data.
        CREATE TABLE audit.erasures (
            erasure_id uuid PRIMARY KEY,
            subject text NOT NULL UNIQUE,
            at timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            reason text NOT NULL
        );

        -- Who has read the audit.
        CREATE TABLE audit.reads (
            read_id uuid PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            request_id text NOT NULL,
            path text NOT NULL,
            query text NOT NULL
        );
        CREATE INDEX ON audit.reads (at);

        -- Where the seals stood, signed, and out of reach of whoever writes the audit.
        CREATE TABLE audit.anchors (
            anchor_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            made_at timestamptz NOT NULL DEFAULT now(),
            statement text NOT NULL UNIQUE,
            signature bytea NOT NULL,
            key_id text NOT NULL
        );
        -- A table's owner can take any right back that he has given up: a trigger refuses him too.
        CREATE FUNCTION audit.keep_anchors() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE insufficient_privilege USING MESSAGE = 'anchors are only ever added: ' || TG_OP || ' is refused';
        END $$;
        CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.anchors
            FOR EACH STATEMENT EXECUTE FUNCTION audit.keep_anchors();
        ALTER TABLE audit.anchors ENABLE ALWAYS TRIGGER keep;
    """)
    op.execute(WHO)
    for table in AUDITED:
        op.execute(f"""
            ALTER TABLE {table} REPLICA IDENTITY FULL;
            CREATE TRIGGER who BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
                FOR EACH STATEMENT EXECUTE FUNCTION public.audit_who();
            ALTER TABLE {table} ENABLE ALWAYS TRIGGER who;
        """)
    op.execute(ROLE.format(role=ANCHOR_ROLE))
    op.execute(f"""
        GRANT USAGE ON SCHEMA audit TO {ANCHOR_ROLE};
        GRANT SELECT, INSERT ON audit.anchors TO {ANCHOR_ROLE};
    """)


def downgrade() -> None:
    """The role stays: other databases of the cluster may use it."""
    for table in AUDITED:
        op.execute(f"DROP TRIGGER who ON {table}")
    op.execute("DROP SCHEMA audit CASCADE; DROP FUNCTION public.audit_who(); DROP TABLE public.audit_context")
