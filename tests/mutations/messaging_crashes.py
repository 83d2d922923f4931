"""The rules by which a crash anywhere costs no order and doubles no effect; those of processes need servers."""

from tests.mutations import rule

CONSUMER = "showcase/messaging/worker/consumer.py"
RELAY = "showcase/messaging/worker/relay.py"
KEEPER = "showcase/messaging/worker/parking.py"
OUTBOX = "showcase/messaging/infrastructure/outbox.py"
STATES = (
    "tests/unit/test_messaging_states.py::"
    "test_whoever_dies_wherever_each_order_has_one_effect_and_each_poison_is_parked_once"
)
CRASHES = "tests/integration/test_crash_points.py"
KILLED = f"{CRASHES}::test_killed_between_two_steps_each_order_is_charged_once"
COPIES = f"{CRASHES}::test_a_consumer_killed_when_its_copies_were_taken_and_the_originals_not_acknowledged"
HANDLE = "        with suppress(_Stopped):\n            await self._handle(list(works.values()))\n"
ENTER = "entered = set(ids) if self.inbox is None else await self.inbox.enter(ids)"


MUTATIONS = (
    rule("what was handled is in the inbox", CONSUMER, ENTER, "entered = set(ids)", STATES),
    rule(
        "a message is acknowledged after the commit",
        CONSUMER,
        HANDLE,
        f"        self.broker.acknowledge([one for work in works.values() for one in work.deliveries])\n{HANDLE}",
        STATES,
    ),
    rule(
        "a message is acknowledged when its copy was taken",
        CONSUMER,
        "                outcomes = await self.broker.publish([copy for _, copy in copies])\n",
        "                self.broker.acknowledge([delivery for delivery, _ in copies])\n"
        "                outcomes = await self.broker.publish([copy for _, copy in copies])\n",
        STATES,
    ),
    rule(
        "what failed was not handled",
        CONSUMER,
        "await self.inbox.leave(work.id)  #",
        "pass  #",
        STATES,
    ),
    rule("what failed leaves nothing behind", CONSUMER, ", self.savepoint():", ":", STATES),
    rule(
        "what the broker may not have taken is not marked",
        RELAY,
        "        outcomes = await self._publisher.publish(messages)\n",
        "        try:\n            outcomes = await self._publisher.publish(messages)\n"
        "        except Exception:\n            return [Outcome.TAKEN] * len(messages)\n",
        STATES,
    ),
    rule(
        "a message is kept before it is acknowledged",
        KEEPER,
        "            new = await lot.add(",
        "            broker.acknowledge(batch)\n            new = await lot.add(",
        STATES,
    ),
    # -- with processes
    rule(
        "each is marked when the broker has taken it, and not before",
        OUTBOX,
        "            told = await _tell(rows, publish)\n            await self._mark(db, told)\n",
        "            await self._mark(db, {row.position: Outcome.TAKEN for row in rows})\n"
        "            told = await _tell(rows, publish)\n",
        f"{KILLED}[published, not marked]",
    ),
    rule(
        "a process's messages are acknowledged after the commit",
        CONSUMER,
        HANDLE,
        f"        self.broker.acknowledge([one for work in works.values() for one in work.deliveries])\n{HANDLE}",
        f"{KILLED}[in the handler]",
    ),
    rule(
        "a process's inbox and charge are one transaction",
        CONSUMER,
        ENTER,
        "entered = set(ids)",
        f"{KILLED}[committed, not acknowledged]",
    ),
    rule(
        "a process acknowledges a message when its copy was taken",
        CONSUMER,
        "                outcomes = await self.broker.publish([copy for _, copy in copies])\n",
        "                self.broker.acknowledge([delivery for delivery, _ in copies])\n"
        "                outcomes = await self.broker.publish([copy for _, copy in copies])\n",
        COPIES,
    ),
)
