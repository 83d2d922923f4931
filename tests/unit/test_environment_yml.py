"""environment.yml asks for what the code needs."""

import tomllib
from typing import Any

import pytest
import yaml

from workshop.stack.local import java, mongo, postgres
from workshop.stack.local.folder import CHECKOUT

ENVIRONMENT: dict[str, Any] = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
ASKED = dict(one.partition(" ")[::2] for one in ENVIRONMENT["dependencies"] if isinstance(one, str))


def test_python_is_the_one_of_the_project() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert ASKED["python"] == project["requires-python"]


@pytest.mark.parametrize(
    ("package", "oldest"),
    [("postgresql", postgres.OLDEST), ("mongodb", mongo.OLDEST), ("openjdk", java.OLDEST)],
)
def test_servers_are_no_older_than_the_local_stack_takes(package: str, oldest: int) -> None:
    assert ASKED[package] == f">={oldest}"


def test_everything_a_local_stack_looks_for_on_path_is_asked_for() -> None:
    assert {"redis-server", "rabbitmq-server", "maven", "pip"} <= ASKED.keys()
    assert set(ENVIRONMENT["channels"]) == {"conda-forge", "nodefaults"}


def test_the_project_itself_is_installed_by_pip() -> None:
    assert {"pip": ["-e ."]} in ENVIRONMENT["dependencies"]
