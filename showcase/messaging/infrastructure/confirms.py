"""What is on its way to the broker, and what became of it (publisher confirms).

The broker numbers the messages of a channel from 1. It confirms one, or all up to one, in any order. A message that no
queue takes it first sends back, without its number.
"""

import asyncio
from dataclasses import dataclass, field

from pika import BasicProperties
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic

from showcase.messaging.domain import Outcome

OUT = 4_000
OUT_BYTES = 8 * 1024 * 1024
"""So many messages, and bytes, may be without their confirms; later ones wait."""


@dataclass(slots=True)
class Batch:
    """Messages that went out together.

    Attributes:
        size: bytes.
        left: how many are not confirmed yet.
        others: what became of those that were not taken, by tag.
    """

    size: int
    left: int
    confirmed: "asyncio.Future[None]"
    others: dict[int, Outcome] = field(default_factory=dict)


class Confirms:
    """The messages of one channel that are on their way.

    Attributes:
        next_tag: the number of the message that is sent next.
        room: set whenever there is less on its way than before.
    """

    def __init__(self) -> None:
        self.next_tag = 1
        self.room = asyncio.Event()
        self._unconfirmed: dict[int, Batch] = {}
        self._oldest = 1
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._unconfirmed) >= OUT or self._bytes >= OUT_BYTES

    def sent(self, count: int, size: int) -> Batch:
        """So many messages, of so many bytes together, are sent now."""
        batch = Batch(size, count, asyncio.get_running_loop().create_future())
        if not count:
            batch.confirmed.set_result(None)
        self._unconfirmed |= dict.fromkeys(range(self.next_tag, self.next_tag + count), batch)
        self._bytes += size
        self.next_tag += count
        return batch

    def on_return(self, _: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        """No queue takes a message. Its confirm follows."""
        tag = int(properties.correlation_id)
        self._unconfirmed[tag].others[tag] = Outcome.UNROUTABLE

    def on_confirm(self, frame: "Method[Basic.Ack | Basic.Nack]") -> None:
        """The broker took or refused one message, or all up to one."""
        method = frame.method
        first = self._oldest if method.multiple else method.delivery_tag
        for tag in range(first, method.delivery_tag + 1):
            if (batch := self._unconfirmed.pop(tag, None)) is None:
                continue  # confirmed on its own before
            if isinstance(method, Basic.Nack):
                batch.others[tag] = Outcome.REFUSED
            batch.left -= 1
            if not batch.left:
                self._bytes -= batch.size
                self.room.set()
                if not batch.confirmed.done():  # nobody waits for it any longer
                    batch.confirmed.set_result(None)
        if method.multiple:
            self._oldest = method.delivery_tag + 1
