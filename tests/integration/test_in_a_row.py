"""The order as two calls in a row, on a real database: it takes the money, and not always gives something for it."""

import pandas as pd

from workshop.in_a_row import place_all
from workshop.stack import Stack

LINES = pd.DataFrame(
    [(1, 10, 2, 300), (1, 11, 1, 100), (2, 10, 2, 300), (3, 11, 1, 100), (3, 11, 1, 50)],
    columns=["basket_id", "product_id", "quantity", "total_cents"],
)


def test_a_basket_that_finds_a_shelf_too_empty_is_paid_and_takes_nothing(stack: Stack) -> None:
    with stack.namespace() as namespace:
        served = place_all(namespace.postgres_url, LINES, shelf_pieces=3)
        assert served.paid_cents.to_dict() == {1: 400, 2: 300, 3: 150}
        assert served.packed.to_dict() == {1: True, 2: False, 3: True}
        again = place_all(namespace.postgres_url, LINES, shelf_pieces=4)
        assert again.packed.all(), "each time the books begin empty, and the shelves full"
