"""The rules by which a load with a fault is judged: a counter that counts nothing finds nothing."""

from tests.mutations import Mutation

CHAOS, RABBITMQ = "workshop/chaos.py", "workshop/stack/local/rabbitmq.py"
SAGAS, FAULTS = "workshop/pictures/sagas.py", "workshop/pictures/faults.py"
TESTS, PICTURES = "tests/unit/test_chaos.py", "tests/unit/test_pictures_sagas.py"


def of_chaos(name: str) -> tuple[str, ...]:
    return (f"{TESTS}::{name}",)


def of_pictures(name: str) -> tuple[str, ...]:
    return (f"{PICTURES}::{name}",)


MUTATIONS = (
    Mutation(
        rule="what was paid is what the till says, to the cent",
        file=CHAOS,
        old="        & (of_attempts.charged_cents - of_attempts.refunded_cents == of_attempts.total_cents)\n",
        new="",
        tests=of_chaos("test_what_was_acknowledged_and_did_not_come_out_right_is_lost"),
    ),
    Mutation(
        rule="what was packed is what the till says, to the piece",
        file=CHAOS,
        old="        & (of_attempts.picked == of_attempts.pieces)\n",
        new="",
        tests=of_chaos("test_what_was_acknowledged_and_did_not_come_out_right_is_lost"),
    ),
    Mutation(
        rule="a basket that payment has to decline is not to be packed",
        file=CHAOS,
        old="        & (of_attempts.total_cents <= limit_cents)\n",
        new="",
        tests=of_chaos("test_a_dear_basket_that_was_packed_is_lost"),
    ),
    Mutation(
        rule="a second charge of one order is a duplicate",
        file=CHAOS,
        old=', charges=("charges", "sum")',
        new="",
        tests=of_chaos("test_what_happened_twice_is_counted"),
    ),
    Mutation(
        rule="a second order of one basket is a duplicate",
        file=CHAOS,
        old='charges=("charges", "sum"))',
        new='charges=("charges", "max")).drop(columns="orders")',
        tests=of_chaos("test_what_happened_twice_is_counted"),
    ),
    Mutation(
        rule="an order that nobody has sent is seen",
        file=CHAOS,
        old='whole.known == "left_only"',
        new='whole.known == "right_only"',
        tests=of_chaos("test_an_order_that_nobody_has_sent_is_unexpected"),
    ),
    Mutation(
        rule="what was not acknowledged and happened is recovered",
        file=CHAOS,
        old="len(ok - acknowledged)",
        new="0 * len(ok)",
        tests=of_chaos("test_what_was_not_acknowledged_may_have_happened_or_not"),
    ),
    Mutation(
        rule="a fault is felt until nobody is refused",
        file=CHAOS,
        old="[broken_at, *refused, *ended]",
        new="[broken_at, *ended]",
        tests=of_chaos("test_a_fault_is_felt"),
    ),
    Mutation(
        rule="what is broken is mended not before its time",
        file=CHAOS,
        old="            time.sleep(max(0.0, self.lasts_s - self._lasted_s()))\n",
        new="",
        tests=of_chaos("test_what_is_broken_when_the_load_is_over_is_mended_not_before_its_time"),
    ),
    Mutation(
        rule="every queue has to be on disk",
        file=RABBITMQ,
        old='return all(f"_{queue}".encode() in known',
        new='return any(f"_{queue}".encode() in known',
        tests=of_chaos("test_a_quorum_queue_is_on_disk_when_the_list_of_them_names_it"),
    ),
    Mutation(
        rule="an alarm stands where it went off",
        file=SAGAS,
        old='        if row["type"] == ALARM:\n            continue\n',
        new="",
        tests=of_pictures("test_an_alarm_that_found_nothing_to_do_is_left_out"),
    ),
    Mutation(
        rule="a counter that is not 0 and must be does not look as if it were",
        file=FAULTS,
        old="{'✗' if number else '✓'}",
        new="✓",
        tests=of_pictures("test_a_counter_that_must_be_0_says_whether_it_is"),
    ),
)
