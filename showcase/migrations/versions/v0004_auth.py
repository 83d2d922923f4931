"""Accounts, sessions, refresh tokens, second factors, signing keys, and every event of them.

Of a secret only a hash is stored, or, where it is needed again, the secret sealed with a key from the settings.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        CREATE SCHEMA auth;

        CREATE TABLE auth.accounts (
            account_id uuid PRIMARY KEY,
            email text NOT NULL UNIQUE,
            subject text NOT NULL UNIQUE,
            role text NOT NULL CHECK (role IN ('customer', 'support', 'auditor')),
            password_hash text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );

        -- What was sent to an address, or asked of somebody half signed in, and is to come back within minutes.
        CREATE TABLE auth.challenges (
            challenge_id uuid PRIMARY KEY,
            purpose text NOT NULL CHECK (purpose IN ('register', 'reset', 'login')),
            email text NOT NULL,
            account_id uuid REFERENCES auth.accounts ON DELETE CASCADE,
            code_hash bytea,
            password_hash text,
            tries_left smallint NOT NULL,
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX ON auth.challenges (email, purpose);
        CREATE INDEX ON auth.challenges (account_id);
        CREATE INDEX ON auth.challenges (expires_at);

        CREATE TABLE auth.totp (
            account_id uuid PRIMARY KEY REFERENCES auth.accounts ON DELETE CASCADE,
            secret bytea NOT NULL,
            confirmed_at timestamptz,
            last_step bigint NOT NULL DEFAULT 0
        );
        CREATE TABLE auth.recovery_codes (
            account_id uuid NOT NULL REFERENCES auth.accounts ON DELETE CASCADE,
            code_hash bytea NOT NULL,
            used_at timestamptz,
            PRIMARY KEY (account_id, code_hash)
        );

        -- A session is a family of refresh tokens; `generation` is that of the youngest.
        CREATE TABLE auth.sessions (
            session_id uuid PRIMARY KEY,
            account_id uuid NOT NULL REFERENCES auth.accounts ON DELETE CASCADE,
            generation integer NOT NULL,
            acr text NOT NULL,
            amr text[] NOT NULL,
            auth_time timestamptz NOT NULL,
            address text NOT NULL,
            device text NOT NULL,
            in_browser boolean NOT NULL,
            created_at timestamptz NOT NULL,
            used_at timestamptz NOT NULL,
            idle_until timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz,
            revoked_why text
        );
        CREATE INDEX ON auth.sessions (account_id, session_id);
        CREATE INDEX ON auth.sessions (revoked_at) WHERE revoked_at IS NOT NULL;
        CREATE INDEX ON auth.sessions (expires_at);

        CREATE TABLE auth.refresh_tokens (
            token_id uuid PRIMARY KEY,
            session_id uuid NOT NULL REFERENCES auth.sessions ON DELETE CASCADE,
            generation integer NOT NULL,
            parent_id uuid,
            secret_hash bytea NOT NULL,
            secret_key_id text NOT NULL,
            issued_at timestamptz NOT NULL,
            used_at timestamptz,
            UNIQUE (session_id, generation)
        );
        CREATE INDEX ON auth.refresh_tokens (parent_id);

        CREATE TABLE auth.keys (
            kid text PRIMARY KEY,
            algorithm text NOT NULL,
            state text NOT NULL CHECK (state IN ('next', 'current', 'retiring')),
            public_jwk jsonb NOT NULL,
            private_sealed bytea NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            retires_at timestamptz
        );
        CREATE UNIQUE INDEX ON auth.keys (state) WHERE state IN ('next', 'current');

        -- Letters that wait to be sent; the body is sealed, since there may be a code in it.
        CREATE TABLE auth.mails (
            mail_id uuid PRIMARY KEY,
            recipient text,
            body bytea NOT NULL,
            tries smallint NOT NULL DEFAULT 0,
            due_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ON auth.mails (due_at);

        CREATE TABLE auth.events (
            event_id uuid PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            type text NOT NULL,
            actor text NOT NULL,
            account_id uuid,
            session_id uuid,
            address text NOT NULL,
            reason text NOT NULL,
            data jsonb NOT NULL
        );
        CREATE INDEX ON auth.events (account_id, event_id DESC);
        CREATE INDEX ON auth.events (session_id, event_id);
        CREATE INDEX ON auth.events (at);
        ALTER TABLE auth.events REPLICA IDENTITY FULL;

        CREATE SEQUENCE new_households START 1000000;
    """)


def downgrade() -> None:
    op.execute("DROP SCHEMA auth CASCADE; DROP SEQUENCE new_households")
