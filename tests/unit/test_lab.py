"""The lab's checkpoints and waiting: what they show, and what they refuse."""

from typing import Any

import pandas as pd
import pytest

from workshop.lab import CheckFailed, checks
from workshop.lab.background import Background
from workshop.lab.replay import bodies
from workshop.report.marks import CHECK


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The marks of the checks that were displayed."""
    marks: list[dict[str, Any]] = []
    monkeypatch.setattr(checks, "display", lambda bundle, raw: marks.append(bundle[CHECK]))
    return marks


def test_a_check_that_holds_is_shown(shown: list[dict[str, Any]]) -> None:
    checks.check("nothing lost", True, "0 of 100")
    assert shown == [{"what": "nothing lost", "holds": True, "detail": "0 of 100"}]


def test_a_check_that_does_not_hold_is_shown_and_stops_the_notebook(shown: list[dict[str, Any]]) -> None:
    with pytest.raises(CheckFailed, match=r"nothing lost\. 3 of 100"):
        checks.check("nothing lost", False, "3 of 100")
    (mark,) = shown
    assert mark["holds"] is False
    assert "workshop doctor" in mark["detail"]


def test_sources_that_agree_are_named(shown: list[dict[str, Any]]) -> None:
    checks.agree("orders", pandas=1_234, postgres=pd.Series([1_234]).iloc[0])
    assert shown[0]["detail"] == "pandas and postgres say 1,234"


@pytest.mark.usefixtures("shown")
def test_sources_that_differ_are_all_shown() -> None:
    with pytest.raises(CheckFailed, match=r"they differ: pandas \(100, 7\), kafka \(99, 7\)"):
        checks.agree("orders", pandas=(100, 7), kafka=(99, 7))


def test_one_source_cannot_agree_with_itself() -> None:
    with pytest.raises(ValueError, match="name a second one"):
        checks.agree("orders", postgres=100)


def test_waiting_ends_with_what_the_condition_returned() -> None:
    answers = iter([0, 0, 7])
    assert checks.until(lambda: next(answers), within="5 s") == 7


def test_waiting_is_bounded_and_says_what_for() -> None:
    with pytest.raises(CheckFailed, match=r"not within 100 ms: all orders are packed\. Seen last: \[\]"):
        checks.until(list, within="100 ms", what="all orders are packed")


def test_the_error_of_what_runs_in_the_background_comes_out_where_it_is_waited_for() -> None:
    background = Background()

    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        background.run(fail())
    background.close()


def test_a_basket_becomes_the_body_of_a_request() -> None:
    lines = pd.DataFrame(
        {"basket_id": [7, 7, 8], "household_id": [1, 1, 2], "product_id": [5, 6, 5], "quantity": [1, 2, 3]}
        | {"total_cents": [99, 198, 297]}
    )
    assert bodies(lines) == [
        (
            7,
            1,
            {
                "reference": "7",
                "lines": [
                    {"product_id": 5, "quantity": 1, "total_cents": 99},
                    {"product_id": 6, "quantity": 2, "total_cents": 198},
                ],
            },
        ),
        (8, 2, {"reference": "8", "lines": [{"product_id": 5, "quantity": 3, "total_cents": 297}]}),
    ]
