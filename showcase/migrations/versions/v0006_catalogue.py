"""Products have a version, which every change raises, whoever makes it: a request, a seeding, a person with psql."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        CREATE SEQUENCE product_versions;
        ALTER TABLE products ADD version bigint;
        UPDATE products SET version = nextval('product_versions');
        ALTER TABLE products ALTER version SET NOT NULL;
        ALTER SEQUENCE product_versions OWNED BY products.version;

        -- PostgreSQL locks a row before it calls a BEFORE UPDATE trigger for it, so whoever comes later takes the
        -- number later: the versions of a row grow in the order in which its changes commit. One sequence for all
        -- rows: a product that is deleted and comes again has a higher version than it ever had. (Unless its INSERT
        -- had begun before, and waited for the deletion: then it is as good as gone, for those who compare versions,
        -- until they forget the deletion or it changes again.)
        CREATE FUNCTION count_product_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.version := nextval('public.product_versions');
            RETURN NEW;
        END $$;
        CREATE TRIGGER count_version BEFORE INSERT OR UPDATE ON products
            FOR EACH ROW EXECUTE FUNCTION count_product_version();
    """)


def downgrade() -> None:
    op.execute("""
        DROP TRIGGER count_version ON products;
        DROP FUNCTION count_product_version();
        ALTER TABLE products DROP version;
    """)
