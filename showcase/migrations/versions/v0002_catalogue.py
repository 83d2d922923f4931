"""What the shop sells and to whom, and the database roles of its services.

Roles belong to the whole cluster and not to this database, in which later migrations grant them their rights. They
cannot log in yet: whoever runs the cluster gives each a password.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

ROLES = ("showcase_payment", "showcase_stock", "showcase_notice")

PRODUCTS = """
    CREATE TABLE products (
        product_id bigint PRIMARY KEY,
        manufacturer_id bigint,
        department text,
        brand text,
        category text,
        type text,
        package_size text
    )
"""
HOUSEHOLDS = """
    CREATE TABLE households (
        household_id bigint PRIMARY KEY,
        age text,
        income text,
        home_ownership text,
        marital_status text,
        size text,
        composition text,
        kids text
    )
"""
# Another database of the cluster may be migrated this moment: the later of the two finds what the other made.
# Looked for first, because the error comes before the look for those who may not make roles.
ROLE = """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END $$
"""


def upgrade() -> None:
    op.execute(PRODUCTS)
    op.execute("ALTER TABLE products REPLICA IDENTITY FULL")
    op.execute(HOUSEHOLDS)
    for role in ROLES:
        op.execute(ROLE.format(role=role))


def downgrade() -> None:
    """The roles stay: other databases of the cluster may use them."""
    op.drop_table("households")
    op.drop_table("products")
