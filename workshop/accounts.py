"""Accounts of the lessons: one a household and two of staff, all with one password that is no secret."""

import psycopg
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

PASSWORD = "only for the workshop"  # noqa: S105 - for everybody to know
DOMAIN = "shop.test"
STAFF = {"ada": "support", "grace": "auditor"}


def seed(connection: psycopg.Connection) -> int:
    """Give every household an account, `household-7@shop.test`, and staff theirs, `ada@shop.test`; how many.

    Those that are there stay as they are. Raises psycopg.Error.
    """
    hashed = PasswordHash((Argon2Hasher(memory_cost=19_456, time_cost=2, parallelism=1),)).hash(PASSWORD)
    households = connection.execute(_HOUSEHOLDS, {"domain": DOMAIN, "hash": hashed}).rowcount
    rows = [(email_of(f"staff/{name}"), f"staff/{name}", role, hashed) for name, role in STAFF.items()]
    return households + sum(connection.execute(_STAFF, row).rowcount for row in rows)


def email_of(subject: str, domain: str = DOMAIN) -> str:
    """The address of a household or of staff: `households/7`, `staff/ada`."""
    kind, _, name = subject.partition("/")
    return f"household-{name}@{domain}" if kind == "households" else f"{name}@{domain}"


def move(connection: psycopg.Connection, domain: str) -> None:
    """Give all accounts addresses of another domain, so that each lesson reads its own mail only."""
    connection.execute("UPDATE auth.accounts SET email = split_part(email, '@', 1) || '@' || %s", [domain])


_HOUSEHOLDS = """
    INSERT INTO auth.accounts (account_id, email, subject, role, password_hash)
    SELECT gen_random_uuid(), 'household-' || household_id || '@' || %(domain)s, 'households/' || household_id,
        'customer', %(hash)s
    FROM households ON CONFLICT DO NOTHING
"""
_STAFF = """
    INSERT INTO auth.accounts (account_id, email, subject, role, password_hash)
    VALUES (gen_random_uuid(), %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
