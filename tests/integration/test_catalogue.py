"""What is in a fresh database, and who may log in to it: on real servers, compared with pandas."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

from showcase.shop import catalogue
from showcase.shop.catalogue import Seeded
from workshop.stack import Stack, StackError
from workshop.stack.model import Urls, credentials, url_of
from workshop.stack.namespace import Namespace
from workshop.stack.namespace.postgres import check_services_once

POSTGRES = "SHOWCASE_POSTGRES_URL"
ROLES = ("showcase_payment", "showcase_stock", "showcase_notice", "showcase_anchor")
SERVICES = tuple(f"{role.upper()}_POSTGRES_URL" for role in ROLES)
AT_ONCE = 8


@pytest.fixture
def names(stack: Stack) -> Iterator[Namespace]:
    """A fresh namespace, in PostgreSQL alone."""
    with Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names


@pytest.fixture
def own() -> Iterator[Stack]:
    """A PostgreSQL of one's own in which nobody has made a template or a role yet."""
    with Stack.private(["postgres"]) as stack:
        yield stack


# -- the rows


@pytest.mark.parametrize("table", ["products", "households"])
def test_a_fresh_database_has_every_row_as_pandas_reads_it(names: Namespace, table: str) -> None:
    wanted: pd.DataFrame = {"products": expected_products, "households": expected_households}[table]()
    with psycopg.connect(names.postgres_url) as db:
        cursor = db.execute(SQL("SELECT * FROM {} ORDER BY 1").format(Identifier(table)))
        columns = [column.name for column in cursor.description or ()]
        rows = cursor.fetchall()
    assert set(wanted) <= set(columns)
    seen = pd.DataFrame(rows, columns=columns)[list(wanted)].astype(wanted.dtypes.to_dict())
    assert seen.equals(wanted)


def test_nothing_known_is_null_and_never_an_empty_text(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        query = "SELECT count(*), count(category), count(type), count(package_size) FROM products"
        assert db.execute(query).fetchone() == (92_331, 91_791, 91_803, 61_745)
        query = "SELECT count(*), count(age), count(home_ownership), count(marital_status) FROM households"
        assert db.execute(query).fetchone() == (2_469, 801, 568, 664)


def test_an_update_of_a_product_tells_its_whole_row_to_whoever_reads_the_log(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        query = "SELECT relreplident FROM pg_class WHERE oid = 'products'::regclass"
        assert db.execute(query).fetchone() == ("f",)


def test_a_fresh_database_is_analysed_and_needs_no_vacuum(names: Namespace) -> None:
    query = "SELECT reltuples::bigint, relallvisible = relpages FROM pg_class WHERE oid = 'products'::regclass"
    with psycopg.connect(names.postgres_url) as db:
        assert db.execute(query).fetchone() == (92_331, True)
        assert db.execute("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'products'").fetchone() == (True,)


# -- seeding


def test_seeding_again_changes_nothing(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        db.execute("UPDATE products SET brand = 'ours' WHERE product_id = 25671")
        assert catalogue.seed(db) == Seeded(products=0, households=0)
        assert counts(db) == (92_331, 2_469)
        assert db.execute("SELECT brand FROM products WHERE product_id = 25671").fetchone() == ("ours",)


def test_seeding_belongs_to_the_transaction_of_the_caller(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        db.execute("DELETE FROM products WHERE product_id < 30000")
        db.execute("TRUNCATE households CASCADE")
        db.commit()
        left = counts(db)
        added = catalogue.seed(db)
        assert added == Seeded(products=92_331 - left[0], households=2_469)
        assert added.products > 0
        db.rollback()
        assert counts(db) == left
        assert catalogue.seed(db) == added
        db.commit()
        assert counts(db) == (92_331, 2_469)


def test_two_who_seed_at_once_seed_once(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        db.execute("TRUNCATE products, households CASCADE")

    def seed(_: int) -> Seeded:
        with psycopg.connect(names.postgres_url) as db:
            return catalogue.seed(db)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(seed, range(2)))
    assert sum(one.products for one in both) == 92_331
    assert sum(one.households for one in both) == 2_469


# -- the services' roles


@pytest.mark.parametrize("variable", SERVICES)
def test_a_service_logs_in_and_may_touch_no_table_of_the_shop(names: Namespace, variable: str) -> None:
    with psycopg.connect(names.env[variable], autocommit=True) as db:
        service = variable.removeprefix("SHOWCASE_").partition("_")[0].lower()
        assert db.execute("SELECT current_user, current_database()").fetchone() == (
            f"showcase_{service}",
            f"ns_{names.name}",
        )
        for forbidden in (
            "SELECT FROM products",
            "SELECT FROM households",
            "UPDATE heartbeat SET beat_at = now()",
            "CREATE TABLE mine (id int)",
            "CREATE SCHEMA mine",
            "SET ROLE showcase",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                db.execute(forbidden)


def test_what_a_role_may_do_is_copied_with_a_database_and_goes_with_it(names: Namespace) -> None:
    copy = f"{names.name}c"
    with psycopg.connect(names.postgres_url) as db:
        db.execute("CREATE SCHEMA probe")
        db.execute("CREATE TABLE probe.paid AS SELECT 1 AS id")
        db.execute("GRANT USAGE ON SCHEMA probe TO showcase_payment")
        db.execute("GRANT SELECT ON probe.paid TO showcase_payment")
    with psycopg.connect(names.urls[POSTGRES], autocommit=True) as db:
        db.execute(
            SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(f"ns_{copy}"), Identifier(f"ns_{names.name}"))
        )
    with Namespace(names.urls, copy) as copied:
        query = "SELECT id FROM probe.paid"
        with psycopg.connect(copied.env["SHOWCASE_PAYMENT_POSTGRES_URL"]) as db:
            assert db.execute(query).fetchall() == [(1,)]
        with (
            psycopg.connect(copied.env["SHOWCASE_STOCK_POSTGRES_URL"]) as db,
            pytest.raises(errors.InsufficientPrivilege),
        ):
            db.execute(query)
    query = "SELECT count(*) FROM pg_shdepend WHERE dbid <> 0 AND dbid NOT IN (SELECT oid FROM pg_database)"
    with psycopg.connect(names.urls[POSTGRES]) as db:
        assert db.execute("SELECT FROM pg_database WHERE datname = %s", [f"ns_{copy}"]).fetchone() is None
        assert db.execute(query).fetchone() == (0,)


def test_roles_whose_password_is_another_get_that_of_the_stack_also_when_many_ask_at_once(own: Stack) -> None:
    Namespace.create(own.urls).drop()  # from here on there are template and roles
    with psycopg.connect(own.urls[POSTGRES], autocommit=True) as db:
        db.execute("ALTER ROLE showcase_payment PASSWORD 'of another time'")
        db.execute("ALTER ROLE showcase_notice NOLOGIN")
    check_services_once.cache_clear()  # as in a new process
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda _: Namespace.create(own.urls), range(AT_ONCE)))
    for names in made:
        assert all(logs_in(names.env[variable]) for variable in SERVICES)


def test_the_password_of_the_services_is_in_no_log(own: Stack) -> None:
    with psycopg.connect(own.urls[POSTGRES], autocommit=True) as db:
        db.execute("ALTER SYSTEM SET log_statement = 'all'")
        db.execute("SELECT pg_reload_conf()")
    Namespace.create(own.urls).drop()
    log = own.backend.logs("postgres", 10_000)
    assert 'ALTER ROLE "showcase_payment" LOGIN PASSWORD' in log
    assert credentials(url_of(own.urls, POSTGRES))[1] not in log


def test_a_user_who_may_not_make_roles_is_told_so(own: Stack) -> None:
    poor = poor_user(own)
    with pytest.raises(StackError, match="poor may not make what a namespace needs: permission denied") as refusal:
        Namespace.create(poor)
    assert "CREATEROLE" in refusal.value.remedy

    with psycopg.connect(own.urls[POSTGRES], autocommit=True) as db:
        db.execute("ALTER ROLE poor CREATEROLE")
    with Namespace.create(poor) as names:
        assert all(logs_in(names.env[variable]) for variable in SERVICES)


def test_a_user_who_may_not_make_roles_can_use_those_that_somebody_else_made(own: Stack) -> None:
    poor = poor_user(own)
    _, password = credentials(url_of(poor, POSTGRES))
    with psycopg.connect(own.urls[POSTGRES], autocommit=True) as db:
        for role in ROLES:
            db.execute(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(role), Literal(password)))
        with Namespace.create(poor) as names:
            assert all(logs_in(names.env[variable]) for variable in SERVICES)

        db.execute("ALTER ROLE showcase_stock NOLOGIN")
    check_services_once.cache_clear()  # as in a new process
    with pytest.raises(StackError, match="poor may not make what a namespace needs: permission denied") as refusal:
        Namespace.create(poor)
    assert ", ".join(ROLES) in refusal.value.remedy


def test_a_service_that_the_server_keeps_out_is_named(own: Stack) -> None:
    with psycopg.connect(own.urls[POSTGRES], autocommit=True) as db:
        (hba,) = db.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(hba)
        rules.write_text(f"host all showcase_stock all reject\n{rules.read_text()}")
        db.execute("SELECT pg_reload_conf()")
    with pytest.raises(StackError, match=r"a service cannot log in: .*showcase_stock"):
        Namespace.create(own.urls)


# -- what the tests build and look with


def expected_products() -> pd.DataFrame:
    read = pd.read_parquet(catalogue.data_file("products")).rename(columns=catalogue.PRODUCTS)
    return read.sort_values("product_id", ignore_index=True)


def expected_households() -> pd.DataFrame:
    shopped = pd.read_parquet(catalogue.data_file("transactions"), columns=["household_id"]).drop_duplicates()
    known = pd.read_parquet(catalogue.data_file("demographics"))
    everyone = shopped.merge(known, how="left").rename(columns=catalogue.HOUSEHOLDS)
    return everyone.sort_values("household_id", ignore_index=True)


def counts(db: psycopg.Connection) -> tuple[int, int]:
    """How many products and households there are."""
    row = db.execute("SELECT (SELECT count(*) FROM products), (SELECT count(*) FROM households)").fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def logs_in(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def poor_user(stack: Stack) -> Urls:
    """A database user who may make databases and nothing else: the URL by which it logs in."""
    with psycopg.connect(stack.urls[POSTGRES], autocommit=True) as db:
        db.execute("CREATE ROLE poor LOGIN CREATEDB PASSWORD 'a password'")
    url = url_of(stack.urls, POSTGRES)
    place = url.netloc.rpartition("@")[2]
    return {POSTGRES: url._replace(netloc=f"poor:a%20password@{place}").geturl()}
