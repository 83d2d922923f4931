"""The rules by which a message reaches the broker, and by which nothing that goes wrong there is taken for success."""

from tests.mutations import Mutation

BROKER = "showcase/messaging/infrastructure/amqp.py"
CONFIRMS = "showcase/messaging/infrastructure/confirms.py"
CONNECTION = "showcase/messaging/infrastructure/connection.py"
WIRE = "showcase/messaging/infrastructure/wire.py"
DOMAIN = "showcase/messaging/domain.py"


def contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_broker.py::{name}[rabbitmq]" for name in names)


def failures(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_broker_failures.py::{name}" for name in names)


def unit(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{file}.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="what no queue takes is not taken",
        file=WIRE,
        old='_MANDATORY = b"\\x01"',
        new='_MANDATORY = b"\\x00"',
        tests=contract("test_each_message_has_its_own_outcome"),
    ),
    Mutation(
        rule="what was refused is not taken",
        file=CONFIRMS,
        old="if isinstance(method, Basic.Nack):",
        new="if False:",
        tests=contract("test_a_full_queue_refuses_and_takes_again_when_there_is_room"),
    ),
    Mutation(
        rule="a confirm of all up to one starts at the oldest",
        file=CONFIRMS,
        old="first = self._oldest if method.multiple else method.delivery_tag",
        new="first = method.delivery_tag",
        tests=unit("amqp", "test_a_batch_is_confirmed_when_all_of_it_is_in_whatever_order"),
    ),
    Mutation(
        rule="an exchange that is not there costs nobody the channel",
        file=BROKER,
        old="if message.route.exchange not in self._exchanges:",
        new="if False:",
        tests=contract("test_each_message_has_its_own_outcome"),
    ),
    Mutation(
        rule="a body over the limit is not sent",
        file=BROKER,
        old="elif len(message.body) > self._max_message_bytes:",
        new="elif False:",
        tests=contract("test_each_message_has_its_own_outcome"),
    ),
    Mutation(
        rule="only so much is on its way",
        file=BROKER,
        old="while self._confirms.is_full:",
        new="while False:",
        tests=failures("test_no_more_than_so_many_are_ever_on_their_way"),
    ),
    Mutation(
        rule="nothing is sent while the broker is blocked",
        file=BROKER,
        old="        await self._connection.unblocked()\n",
        new="",
        tests=failures("test_a_blocked_broker_is_waited_for_and_then_unavailable_for_that_reason"),
    ),
    Mutation(
        rule="a lost connection ends every wait",
        file=CONNECTION,
        old="await asyncio.wait({answer, self.lost}, ",
        new="await asyncio.wait({answer}, ",
        tests=failures("test_what_was_on_its_way_when_the_line_was_cut_is_unavailable_at_once"),
    ),
    Mutation(
        rule="a silent broker is hung up on",
        file=CONNECTION,
        old="            if not self._closed.is_set():",
        new="            if False:",
        tests=failures("test_a_silent_broker_is_unavailable_in_time_and_left_in_time"),
    ),
    Mutation(
        rule="a deleted queue ends its consumer",
        file=BROKER,
        old="            channel.add_on_cancel_callback(",
        new="            (lambda _: None)(",
        tests=failures("test_a_consumer_whose_queue_goes_does_not_wait_for_ever"),
    ),
    Mutation(
        rule="acknowledged together is only what is settled together",
        file=BROKER,
        old="if tag < oldest_left]",
        new="]",
        tests=contract("test_what_is_handed_back_comes_again_and_what_was_acknowledged_does_not"),
    ),
    Mutation(
        rule="what is handed back goes back at once",
        file=BROKER,
        old="            self._channel.basic_nack(multiple=True)",
        new="            pass",
        tests=contract("test_what_is_handed_back_comes_again_and_what_was_acknowledged_does_not"),
    ),
    Mutation(
        rule="another topology is not waited for",
        file=BROKER,
        old="if refused.code != PRECONDITION_FAILED:",
        new="if True:",
        tests=failures("test_declaring_again_is_harmless_and_another_topology_a_clear_error"),
    ),
    Mutation(
        rule="headers that pika cannot read end no connection",
        file=CONNECTION,
        old="        pika_connection._read_frame = ",
        new="        _ = ",
        tests=failures("test_headers_that_pika_cannot_read_end_no_connection"),
    ),
    Mutation(
        rule="a retried message comes back to one queue alone",
        file=DOMAIN,
        old="(delay, DEFAULT_EXCHANGE) for delay in self.retries",
        new="(delay, EVENTS) for delay in self.retries",
        tests=contract("test_a_retried_message_comes_back_to_its_queue_alone_after_its_time"),
    ),
    Mutation(
        rule="what compose loads is what the description gives",
        file=DOMAIN,
        old="MAX_LENGTH = 100_000",
        new="MAX_LENGTH = 100_001",
        tests=unit("topology", "test_what_compose_loads_is_what_the_description_gives"),
    ),
)
