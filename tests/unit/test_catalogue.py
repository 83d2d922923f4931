"""The catalogue as it is read from its package, before any database sees it."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from showcase import migrations
from showcase.shop import catalogue
from workshop.stack.namespace.postgres import template

now = template.__wrapped__
"""The template's name, asked afresh."""


def test_every_product_is_read_with_nothing_where_nothing_is_known() -> None:
    read = catalogue.products().to_pandas()
    assert list(read) == list(catalogue.PRODUCTS.values())
    original = pd.read_parquet(catalogue.data_file("products")).rename(columns=catalogue.PRODUCTS)
    assert len(read) == 92_331
    assert read.equals(original)


def test_every_household_that_shopped_is_read_and_more_of_those_that_are_known() -> None:
    read = catalogue.households().to_pandas()
    assert list(read) == list(catalogue.HOUSEHOLDS.values())
    shopped = pd.read_parquet(catalogue.data_file("transactions"), columns=["household_id"]).household_id
    assert read.household_id.tolist() == sorted(set(shopped))
    assert len(read) == 2_469
    known = pd.read_parquet(catalogue.data_file("demographics")).rename(columns=catalogue.HOUSEHOLDS)
    described = read[read.age.notna()].reset_index(drop=True)
    assert described.equals(known.sort_values("household_id", ignore_index=True))


def test_importing_it_loads_no_library_that_takes_long() -> None:
    code = "import sys, showcase.shop.catalogue as c; c.data_version(); print({'pandas', 'pyarrow'} & {*sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.strip() == "set()"


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="make setup"):
        catalogue.data_file("products")


def changed_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "data_version", lambda: "0.0.0")


def changed_file(path: str) -> Callable[[pytest.MonkeyPatch], None]:
    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" * (self == Path(path)))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed_data,
        changed_file(catalogue.__file__),
        changed_file(str(migrations.FOLDER / "versions" / "v0002_catalogue.py")),
    ],
    ids=["the package", "the catalogue's code", "a migration"],
)
def test_a_change_of_what_a_template_is_made_from_makes_another_template(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    before = now()
    assert now() == before == template()
    change(monkeypatch)
    assert now() != before
