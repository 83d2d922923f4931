"""The lists of mutations fit the sources, so that they cannot rot; and the runner tells who noticed and who did not."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import Mutation

ROOT = Path(__file__).parents[2]
LISTS = [module.name for module in pkgutil.iter_modules(mutations.__path__) if module.name != "__main__"]


def all_mutations() -> Iterator[tuple[str, Mutation]]:
    for name in LISTS:
        for mutation in importlib.import_module(f"tests.mutations.{name}").MUTATIONS:
            yield f"{name}: {mutation.rule}", mutation


MUTATIONS = dict(all_mutations())


def test_no_two_rules_of_a_list_have_one_name() -> None:
    assert len(MUTATIONS) == len(list(all_mutations()))


@pytest.mark.parametrize("rule", MUTATIONS)
def test_a_mutation_changes_one_place_and_leaves_a_program(rule: str) -> None:
    mutation = MUTATIONS[rule]
    source = (ROOT / mutation.file).read_text()
    assert source.count(mutation.old) == 1
    assert mutation.new != mutation.old
    if mutation.file.endswith(".py"):  # a script of Redis shows when it is loaded
        ast.parse(source.replace(mutation.old, mutation.new))


@pytest.mark.parametrize("rule", MUTATIONS)
def test_the_tests_that_have_to_notice_are_there(rule: str) -> None:
    assert MUTATIONS[rule].tests
    for test in MUTATIONS[rule].tests:
        file, *names = test.partition("[")[0].split("::")
        source = (ROOT / file).read_text()
        assert all(f"def {name}(" in source or f"class {name}" in source or f"{name} = " in source for name in names)


# -- the runner itself, on a project of a few lines

RULED = "def is_small(size: int) -> bool:\n    return size < 10\n"
TEST = "from showcase.rule import is_small\n\n\ndef test_ten_is_not_small() -> None:\n    assert not is_small(10)\n"
NOTICED = Mutation(
    rule="ten is not small",
    file="showcase/rule.py",
    old="size < 10",
    new="size <= 10",
    tests=("tests/test_rule.py::test_ten_is_not_small",),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {"showcase/__init__.py": "", "showcase/rule.py": RULED, "tests/test_rule.py": TEST, "pyproject.toml": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_rule_that_is_missed_is_told_with_the_test_that_noticed(project: Path) -> None:
    runner = importlib.import_module("tests.mutations.__main__")
    assert runner.try_without(project, NOTICED) == "tests/test_rule.py::test_ten_is_not_small"
    assert (project / "showcase/rule.py").read_text() == RULED
    assert runner.run(project, NOTICED.tests)[0] == 0


def test_a_rule_that_nobody_misses_and_a_test_that_does_not_run_are_told(project: Path) -> None:
    runner = importlib.import_module("tests.mutations.__main__")
    assert runner.try_without(project, replace(NOTICED, new="size <  10")) is None
    assert runner.try_without(project, replace(NOTICED, new="size <")) is None, "it broke the import: no test has run"
    with pytest.raises(ValueError, match="exactly once"):
        runner.try_without(project, replace(NOTICED, old="not there"))
