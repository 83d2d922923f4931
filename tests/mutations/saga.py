"""The rules by which an order ends well, whatever arrives in whichever order; they need servers."""

from tests.mutations import rule

DOMAIN = "showcase/shop/domain.py"
SHOP = "showcase/shop/application/shop.py"
ORDERS = "showcase/shop/infrastructure.py"
PAYMENT = "showcase/services/payment.py"
STOCK = "showcase/services/stock.py"
NOTICE = "showcase/services/notice.py"
UNIT = "tests/unit/test_shop.py"
SAGA = "tests/integration/test_saga.py"

STEP = f"{UNIT}::test_each_piece_of_news_takes_an_order_one_step_or_comes_too_late_or_cannot_be"
MEMORY = f"{UNIT}::test_whatever_arrives_in_whatever_order_every_order_ends_well"
MEETING = f"{SAGA}::test_two_processes_that_are_at_one_order_wait_for_each_other"
CROWD = f"{SAGA}::test_many_at_once_take_no_more_than_there_is_and_none_waits_in_a_circle"
ONCE = f"{SAGA}::test_a_household_hears_of_an_order_once_also_if_the_event_comes_twice"


MUTATIONS = (
    # -- the order
    rule(
        "after reserved the deadline means nothing",
        DOMAIN,
        "{Status.PLACED: Status.CANCELLING, Status.PAID: Status.CANCELLING}, _KEPT | _STOPPED, Reason.OVERDUE",
        "{status: Status.CANCELLING for status in Status if status not in _STOPPED}, _STOPPED, Reason.OVERDUE",
        MEMORY,
    ),
    rule(
        "a late charge is no step back",
        DOMAIN,
        "{Status.PAID} | _KEPT | _STOPPED)",
        "{Status.PAID} | _KEPT)",
        MEMORY,
    ),
    rule(
        "what comes too early is refused for now",
        DOMAIN,
        "    if order.status not in rule.steps:\n",
        "    if order.status not in rule.steps:\n        return None\n    if order.status not in rule.steps:\n",
        STEP,
    ),
    rule(
        "an order sets an alarm",
        SHOP,
        "            await self.events.add(alarm_after(placed, order), after=self.order_within)\n",
        "",
        f"{UNIT}::test_an_order_sets_an_alarm_that_is_part_of_its_story",
    ),
    rule(
        "the way of an order is nobody else's affair",
        SHOP,
        "            await self.order(caller, order_id)\n",
        "",
        f"{UNIT}::test_the_way_of_an_order_is_seen_by_whoever_may_see_it",
    ),
    rule("one change of an order at a time", ORDERS, "_FIND_TO_CHANGE if to_change else _FIND", "_FIND", MEETING),
    rule(
        "a step names its cause",
        ORDERS,
        "SELECT order_id, version, status, reason, :cause FROM moved",
        "SELECT order_id, version, status, reason, '' FROM moved",
        f"{SAGA}::test_the_way_of_an_order_names_the_events_that_brought_it_there",
    ),
    # -- payment
    rule(
        "whoever is cancelled first is never charged, nor anybody twice",
        PAYMENT,
        "if (await db.execute(_DECIDE, state)).one_or_none() is None:",
        "if (await db.execute(_DECIDE, state)).one_or_none() is None and False:",
        MEETING,
    ),
    rule(
        "what was charged is paid back",
        PAYMENT,
        "WHEN 'charged' THEN 'refunded'",
        "WHEN 'charged' THEN 'void'",
        MEETING,
    ),
    rule(
        "what is settled stays so",
        PAYMENT,
        "WHERE decision.state IN ('charged', 'declined')",
        "WHERE true",
        MEETING,
    ),
    # -- stock
    rule(
        "nothing is taken for an order that was cancelled first, nor anything twice",
        STOCK,
        "if (await db.execute(_BEGIN, names)).one_or_none() is None:",
        "if (await db.execute(_BEGIN, names)).one_or_none() is None and False:",
        MEETING,
    ),
    rule("all goods or none", STOCK, "if lacking := (await", "if lacking := [] and (await", CROWD),
    rule(
        "shelves are locked in the order of their products",
        STOCK,
        "USING (product_id) ORDER BY product_id FOR UPDATE OF shelf",
        "USING (product_id) ORDER BY random() FOR UPDATE OF shelf",
        CROWD,
    ),
    rule(
        "new shelves are set up in the order of their products",
        STOCK,
        "GROUP BY product_id ORDER BY product_id ON CONFLICT",
        "GROUP BY product_id ORDER BY random() ON CONFLICT",
        CROWD,
    ),
    rule(
        "what is put back is no longer picked",
        STOCK,
        "DELETE FROM stock.picks WHERE order_id = :order_id RETURNING product_id, quantity",
        "SELECT product_id, quantity FROM stock.picks WHERE order_id = :order_id",
        MEETING,
    ),
    rule(
        "what is packed is told once",
        STOCK,
        'if state == "packed":\n                return',
        'if state == "packed":\n                state = "reserved"',
        MEETING,
    ),
    rule(
        "what is not kept is not packed",
        STOCK,
        'if state != "reserved":',
        "if state is None:",
        f"{SAGA}::test_what_is_not_kept_is_not_packed",
    ),
    # -- notice
    rule("a mail that is written down is not sent again", NOTICE, ".scalar_one():", ".scalar_one() and False:", ONCE),
    rule(
        "a refused order of version 1 was declined",
        NOTICE,
        '{**data, "reason": "payment declined"}',
        '{**data, "reason": "overdue"}',
        "tests/unit/test_services.py::test_a_refused_order_of_version_1_is_read_as_declined",
    ),
)
