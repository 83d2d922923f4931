"""Load: a lean HTTP client, so that the app and not the client is what is measured, and contestants that take turns.

Plain sockets that stay open, requests that are bytes already, answers read to their end and no further.
"""

import itertools
import json
import re
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self

Address = tuple[str, int]
Turn = Callable[[], float]
"""Does something for a while; how many a second."""

ANSWER_WITHIN_S = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Refused(Exception):
    """The answer is not what was asked for."""


class Client(Protocol):
    """Somebody who asks again as soon as the answer is there."""

    def ask(self) -> bytes:
        """The next request."""

    def told(self, body: bytes) -> None:
        """The answer to it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A client that does not care for the answers.

    Attributes:
        requests: may be shared with others.
    """

    requests: Iterator[bytes]

    def ask(self) -> bytes:
        return next(self.requests)

    def told(self, body: bytes) -> None:
        pass


class Line:
    """A connection that is kept alive. Every call raises OSError when the app does not answer in time."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, ANSWER_WITHIN_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self.socket.sendall(request)

    def answer(self) -> bytes:
        """The body of the answer. Raises Refused when its status is no success."""
        got = b""
        while (end := got.find(b"\r\n\r\n") + 4) < 4:
            got += self._more()
        length = _LENGTH.search(got, 0, end)
        if length is None:
            raise Refused("an answer without a length")
        whole = end + int(length[1])
        while len(got) < whole:
            got += self._more()
        if not got.startswith(b"HTTP/1.1 2"):
            raise Refused(got[:2_000].decode(errors="replace"))
        return got[end:]

    def _more(self) -> bytes:
        more = self.socket.recv(65_536)
        if not more:
            raise ConnectionResetError("the app has closed the connection")
        return more


class Place:
    """A client and its lines, one to each app process: it asks them in turn."""

    def __init__(self, client: Client, lines: Sequence[Line], first: int) -> None:
        self._client = client
        self._lines = lines
        self._now = first

    def ask(self) -> None:
        self._now = (self._now + 1) % len(self._lines)
        self._lines[self._now].ask(self._client.ask())

    def answer(self) -> None:
        self._client.told(self._lines[self._now].answer())


def answers_a_second(addresses: Sequence[Address], clients: Sequence[Client], seconds: float) -> float:
    """Have some clients ask for a while, all at the same time.

    Raises Refused, OSError.
    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        places = []
        for number, client in enumerate(clients):
            lines = [stack.enter_context(Line(address)) for address in addresses]
            places.append(Place(client, lines, number))
            for line in lines:
                selector.register(line.socket, selectors.EVENT_READ, places[-1])
        answered = 0
        began = now = time.perf_counter()
        for place in places:
            place.ask()
        while now < began + seconds:
            for key, _ in selector.select(ANSWER_WITHIN_S):
                key.data.answer()
                answered += 1
                key.data.ask()
            now = time.perf_counter()
        for place in places:
            place.answer()  # not counted, but a client may need it for what it asks next
    return answered / (now - began)


def request(method: str, path: str, body: object = None, *, token: str = "") -> bytes:
    """A request as it goes over the line.

    Args:
        body: of JSON.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body is None:
        return "\r\n".join([*lines, "", ""]).encode()
    written = json.dumps(body)
    lines += ["Content-Type: application/json", f"Content-Length: {len(written)}"]
    return "\r\n".join([*lines, "", written]).encode()


def asked_once(address: Address, sent: bytes) -> Any:
    """What one request is answered, JSON. Raises Refused, OSError."""
    with Line(address) as line:
        line.ask(sent)
        return json.loads(line.answer())


def in_turns(turns: int, *contestants: Turn) -> list[list[float]]:
    """The rates of each contestant, turn by turn; one turn before them warms up.

    Every second turn goes the other way round: whoever comes first or last has nothing of it.
    """
    rates: list[list[float]] = [[] for _ in contestants]
    both_ways = itertools.cycle([list(enumerate(contestants)), list(enumerate(contestants))[::-1]])
    for order in itertools.islice(both_ways, turns + 1):
        for number, contestant in order:
            rates[number].append(contestant())
    return [found[1:] for found in rates]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure beside another, both a second; without a target it is information.

    Attributes:
        ratio: the median of the turns' own ratios; `rates` are medians, too, but of each side alone.
    """

    figure: str
    beside: str
    rates: tuple[float, float]
    ratio: float
    target: float | None

    @classmethod
    def of(
        cls, figure: str, ours: Sequence[float], beside: str, theirs: Sequence[float], target: float | None = None
    ) -> Self:
        """What came out of some turns."""
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
        rates = statistics.median(ours), statistics.median(theirs)
        return cls(figure=figure, beside=beside, rates=rates, ratio=ratio, target=target)

    @property
    def is_met(self) -> bool:
        return self.target is None or self.ratio >= self.target

    def __str__(self) -> str:
        ours, theirs = self.rates
        aim, met = ("", "") if self.target is None else (f"≥ {self.target:.2f}", "met" if self.is_met else "MISSED")
        sides = f"{self.figure:32} {ours:9,.0f} | {self.beside:38} {theirs:9,.0f}"
        return f"{sides} | {self.ratio:6.2f} | {aim:6} | {met}".rstrip(" |")


HEADING = f"{'figure':32} {'a second':>9} | {'beside':38} {'a second':>9} | {'ratio':>6} | target | met?"
