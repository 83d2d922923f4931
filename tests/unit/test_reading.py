"""Readers over HTTP: each asks when its time has come, every answer is noted, and who was slow is not let off."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import httpx
import pytest

from tests.fakes import uncollected
from workshop import reading
from workshop.lab.background import Background
from workshop.reading import NO_ANSWER, Readers, counts_of, fill, header_of, layer_of, processes_of

NEAR = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Status: showcase; hit; ttl=12; detail=near\r\n\r\n{}"
MISSING = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class App:
    """Answers every request after a while, on connections that stay open.

    Attributes:
        asked: path of each request, in order; connections: how many there were.
    """

    def __init__(self, answer: str = NEAR, after: Callable[[], Awaitable[object]] | None = None) -> None:
        self.asked: list[str] = []
        self.connections = 0
        self._answer, self._after = answer, after
        self._background = Background()
        self._server = self._background.run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(head.split()[1].decode())
                if self._after is not None:
                    await self._after()
                if not self._answer:
                    break
                writer.write(self._answer.encode())
        except asyncio.IncompleteReadError:
            pass  # they hung up
        finally:
            writer.close()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.run(work)

    def close(self) -> None:
        self._background.run(self._end())
        self._background.close()

    async def _end(self) -> None:
        self._server.close()


@pytest.fixture
def start() -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def started(*how: object) -> App:
        apps.append(App(*how))  # type: ignore[arg-type]  # handed through
        return apps[-1]

    yield started
    for app in apps:
        app.close()


def test_processes_are_asked_in_turn_and_each_answer_is_noted_in_the_order_of_the_reads(
    start: Callable[..., App],
) -> None:
    one, two = start(), start(MISSING)
    with Readers([one.url, two.url], [7, 8, 9, 10], rate=200) as readers:
        pass
    frame = readers.frame()
    assert frame.product_id.tolist() == [7, 8, 9, 10]
    assert frame.process.tolist() == [0, 1, 0, 1]
    assert frame.status.tolist() == [200, 404, 200, 404]
    assert frame.layer.tolist() == ["near", "failed", "near", "failed"]
    assert one.asked == ["/products/7", "/products/9"]
    assert readers.sent == readers.answered == 4


def test_a_slow_answer_holds_up_no_other_reader_and_all_of_its_slowness_is_counted(start: Callable[..., App]) -> None:
    free = asyncio.Event()
    app = start(NEAR, free.wait)
    with Readers([app.url], [7] * 10, rate=1_000) as readers:
        until(lambda: readers.sent == 10)
        assert readers.answered == 0
        waited_s = readers.now_s()
        app.run(set_(free))
    frame = readers.frame()
    assert (frame.took_ms >= (waited_s - frame.due_s) * 1000).all()
    assert frame.due_s.tolist() == [number / 1_000 for number in range(10)]


def test_time_counts_from_when_a_read_was_due_also_if_it_could_not_be_sent(
    start: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LINES", 1)
    app = start(NEAR, lambda: asyncio.sleep(0.02))
    with Readers([app.url], [7] * 5) as readers:
        pass
    assert app.connections == 1
    assert readers.frame().took_ms.max() >= 100
    assert (readers.frame().due_s == 0).all()


def test_a_connection_is_used_again_but_not_when_the_app_may_have_closed_it(
    start: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start()
    with Readers([app.url], [7] * 4, rate=20):
        pass
    assert app.connections == 1
    monkeypatch.setattr(reading, "IDLE_S", -1.0)
    with Readers([app.url], [7] * 4, rate=20):
        pass
    assert app.connections == 5


def test_who_hangs_up_has_given_no_answer(start: Callable[..., App]) -> None:
    app = start("")
    with Readers([app.url], [7, 7]) as readers:
        pass
    assert readers.frame().status.tolist() == [NO_ANSWER, NO_ANSWER]
    assert readers.frame().layer.tolist() == ["failed", "failed"]


def test_who_says_nothing_is_given_up_on(start: Callable[..., App], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ANSWER_WITHIN_S", 0.05)
    app = start(NEAR, asyncio.Event().wait)
    with Readers([app.url], [7]) as readers:
        pass
    assert readers.frame().status.tolist() == [NO_ANSWER]


def test_something_is_broken_at_one_moment_of_the_load_and_mended_at_another(start: Callable[..., App]) -> None:
    done: list[str] = []
    with uncollected(), Readers([start().url], [7] * 40, rate=100) as readers:
        began_s, ended_s = readers.during(0.1, 0.2, lambda: done.append("break"), lambda: done.append("mend"))
    assert done == ["break", "mend"]
    assert 0.1 <= began_s < 0.2 <= ended_s


def test_an_error_in_the_block_ends_the_readers_at_once(start: Callable[..., App]) -> None:
    app = start(NEAR, asyncio.Event().wait)
    readers = Readers([app.url], [7] * 3)

    def go_wrong() -> None:
        until(lambda: readers.sent == 3)
        raise KeyError

    with pytest.raises(KeyError), readers:
        go_wrong()
    assert readers.answered == 0


@pytest.mark.parametrize(
    ("status", "header", "layer"),
    [
        (200, "showcase; hit; ttl=12; detail=near", "near"),
        (200, "showcase; hit; ttl=0; detail=far", "far"),
        (200, "showcase; hit; ttl=-1; detail=near", "stale"),
        (200, "showcase; fwd=miss; detail=loaded", "loaded"),
        (200, "", "database"),
        (404, "showcase; fwd=miss; detail=loaded", "failed"),
        (503, "", "failed"),
        (NO_ANSWER, "", "failed"),
    ],
)
def test_who_gave_an_answer_is_read_from_its_header(status: int, header: str, layer: str) -> None:
    assert layer_of(status, header) == layer


def test_a_header_is_found_whatever_its_capitals() -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nX-Cache-Status: no\r\ncache-status: a; hit\r\n\r\n"
    assert header_of(head, "content-length") == "17"
    assert header_of(head, "Cache-Status") == "a; hit"
    assert header_of(head, "status") == ""


class TwoProcesses(httpx.MockTransport):
    """Sends each request to the next of two, as the lab's client does, and notes who was asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str]] = []
        self._next = 0
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        process, self._next = self._next, 1 - self._next
        request.url = request.url.copy_with(port=8_000 + process)
        self.asked.append((process, str(request.url.raw_path.decode())))
        counts = {"near": 1 + process, "loads": 10}
        return httpx.Response(200, json={"counts": counts})


def test_all_processes_behind_a_client_are_found_and_their_counts_added_up() -> None:
    transport = TwoProcesses()
    client = httpx.Client(transport=transport, base_url="http://shop.test:1")
    assert processes_of(client) == ["http://shop.test:8000", "http://shop.test:8001"]
    assert counts_of(client, {}).to_dict() == {"near": 3, "loads": 20}
    processes = [process for process, path in transport.asked if path == "/caching"]
    assert sorted(processes) == [0, 1]


def test_products_are_read_a_hundred_at_a_time() -> None:
    transport = TwoProcesses()
    fill(httpx.Client(transport=transport, base_url="http://shop.test:1"), list(range(250)))
    asked = [path.partition("=")[2].split("%2C") for _, path in transport.asked]
    assert [len(ids) for ids in asked] == [100, 100, 50]
    assert [int(one) for ids in asked for one in ids] == list(range(250))


async def set_(event: asyncio.Event) -> None:
    event.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
