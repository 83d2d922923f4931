"""The rules of the views of orders: how events become them, how they are rebuilt, and who reads them."""

from tests.mutations import Mutation

VIEWS = "showcase/shop/application/views.py"
TABLE = "showcase/shop/infrastructure.py"


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_order_views.py::{name}" for name in names)


def real(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/test_order_views.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="an older event changes nothing",
        file=VIEWS,
        old="await self.views.put_newer(view)",
        new="await self.views.upsert(view)",
        tests=unit("test_whatever_comes_twice_or_in_whatever_order_the_view_is_the_newest_step"),
    ),
    Mutation(
        rule="rebuilding writes what is of the same version again",
        file=VIEWS,
        old="Restore(_view_of(order))",
        new="__import__('showcase.documents').documents.PutNewer(_view_of(order))",
        tests=unit("test_rebuilding_mends_what_somebody_has_spoilt_even_where_the_version_is_the_same"),
    ),
    Mutation(
        rule="rebuilding leaves what is newer",
        file=VIEWS,
        old="Restore(_view_of(order))",
        new="__import__('showcase.documents').documents.Upsert(_view_of(order))",
        tests=unit("test_a_step_that_is_heard_while_its_order_is_rebuilt_stays"),
    ),
    Mutation(
        rule="an order that cannot be stored is not passed over",
        file=VIEWS,
        old="                raise refused[0]",
        new="                pass",
        tests=unit("test_an_order_that_cannot_be_stored_stops_the_rebuilding_and_says_which"),
    ),
    Mutation(
        rule="views of the page before are not looked at again",
        file=VIEWS,
        old="            before = some[-1].id\n",
        new="",
        tests=unit("test_rebuilding_again_and_again_removes_nothing_that_there_is"),
    ),
    Mutation(
        rule="views after the last order are looked at",
        file=VIEWS,
        old="UUID(int=2**128 - 1), set())",
        new="before, set())",
        tests=unit("test_without_any_order_there_are_no_views"),
    ),
    Mutation(
        rule="a view of an order that may be on its way stays",
        file=VIEWS,
        old=', lt("id", settled))',
        new=")",
        tests=unit("test_views_of_orders_that_there_are_not_go_but_not_those_that_may_be_on_their_way"),
    ),
    Mutation(
        rule="a household sees no other's orders",
        file=VIEWS,
        old="caller.household_id != household_id and Scope.ORDERS_FOLLOW not in caller.scopes",
        new="Scope.ORDERS_READ not in caller.scopes",
        tests=unit("test_a_household_sees_its_own_orders_the_newest_first_and_staff_sees_all"),
    ),
    Mutation(
        rule="the household is part of every question",
        file=VIEWS,
        old='[eq("household_id", household_id)]',
        new="[]",
        tests=unit("test_a_household_sees_its_own_orders_the_newest_first_and_staff_sees_all"),
    ),
    Mutation(
        rule="until means not then any more",
        file=VIEWS,
        old='lt("placed_at", which.until)',
        new='lte("placed_at", which.until)',
        tests=unit("test_orders_are_found_by_status_time_and_product"),
    ),
    Mutation(
        rule="all pages of orders are read",
        file=TABLE,
        old="            after = rows[-1].order_id\n            of_order",
        new="            after = UUID(int=2**128 - 1)\n            of_order",
        tests=("tests/integration/test_order_views.py::test_all_orders_come_once_by_their_ids_with_their_lines",),
    ),
    Mutation(
        rule="messages wait while Mongo is away",
        file="showcase/composition.py",
        old="        inbox=Reachable(documents.mongo(resources).ping),\n",
        new="",
        tests=unit("test_messages_wait_while_mongo_is_away_and_the_schema_is_made_before_the_first"),
    ),
    Mutation(
        rule="the schema is made before the first message",
        file="showcase/messaging/wiring.py",
        old="            await consumer.prepare()",
        new="            pass",
        tests=real("test_the_worker_makes_the_schema"),
    ),
)
