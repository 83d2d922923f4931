"""Readers of products over HTTP, open loop: each asks when its time has come, whether others were answered or not.

A client that waits for an answer before it asks again goes easy on an app that is slow, and measures that its slowness
hardly matters ("coordinated omission"). So a read's time counts from when it was due.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import astuple, dataclass, fields
from types import TracebackType
from typing import Any, Self

import httpx
import pandas as pd

from workshop.lab.background import Background

NO_ANSWER = 0
ANSWER_WITHIN_S = 15.0
ALL_WITHIN_S = 180.0
NO_PRODUCTS = range(1, 41)
AT_A_TIME = 100
IDLE_S = 2.0
"""A connection that was not used for longer is not used again: the app closes it after five seconds."""
LINES = 200
"""Connections to each process, at the most: more readers than that wait for one."""
LAYERS = ("near", "far", "loaded", "stale", "database", "failed")
"""Who gave an answer: this process's memory, Redis, the source through the cache, whoever had an old one; the database
of an app without a cache; or nobody."""
_ITEM = re.compile(r'(?P<name>[\w-]+)(?:=(?P<value>[\w.-]+|"[^"]*"))?')


@dataclass(frozen=True, slots=True)
class Read:
    """One read.

    Attributes:
        process: which app process was asked; the first is 0.
        due_s, sent_s, answered_s: seconds since the first read was due.
        status: of HTTP; NO_ANSWER if the connection broke, or nothing came in time.
        layer: of LAYERS.
    """

    number: int
    product_id: int
    process: int
    due_s: float
    sent_s: float
    answered_s: float
    status: int
    layer: str


class Readers:
    """Reads products while its block goes on, and waits at its end until all are answered.

        with Readers(urls, [1082185] * 200) as readers: …
        readers.frame()

    Args:
        urls: of the app processes; they are asked in turn.
        rate: reads a second; all at once if not given.
    """

    def __init__(self, urls: Sequence[str], product_ids: Sequence[int], rate: float | None = None) -> None:
        self._lines = [Lines(url) for url in urls]
        self._product_ids = list(product_ids)
        self._rate = rate
        self._reads: list[Read] = []
        self._sent = 0
        self._began_s = time.perf_counter()
        self._background: Background | None = None
        self._work: Future[None] | None = None

    def __enter__(self) -> Self:
        self._background = Background()
        self._began_s = time.perf_counter()
        self._work = self._background.start(self._read_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._background is not None
        assert self._work is not None
        try:
            if error is None:
                self._work.result(ALL_WITHIN_S)
        finally:
            self._work.cancel()
            self._background.close()

    @property
    def sent(self) -> int:
        """How many reads are on their way or answered."""
        return self._sent

    @property
    def answered(self) -> int:
        """How many have their answer, or know that none comes."""
        return len(self._reads)

    def now_s(self) -> float:
        """Seconds since the first read was due."""
        return time.perf_counter() - self._began_s

    def wait_until(self, at_s: float) -> None:
        """Wait for a moment of the load, or its end."""
        while self.now_s() < at_s and self._work is not None and not self._work.done():
            time.sleep(max(0.0, min(0.05, at_s - self.now_s())))

    def during(
        self, from_s: float, to_s: float, breaks: Callable[[], object], mends: Callable[[], object]
    ) -> tuple[float, float]:
        """Break something at a moment of the load, and mend it at a later one; when that really was."""
        self.wait_until(from_s)
        began_s = self.now_s()
        breaks()
        self.wait_until(to_s)
        mends()
        return began_s, self.now_s()

    def frame(self) -> pd.DataFrame:
        """All reads that were answered so far, in the order in which they were due; took_ms counts from then."""
        frame = pd.DataFrame([astuple(read) for read in list(self._reads)], columns=[one.name for one in fields(Read)])
        frame["took_ms"] = (frame.answered_s - frame.due_s) * 1000
        return frame.sort_values("number", ignore_index=True)

    async def _read_all(self) -> None:
        began = time.perf_counter()
        self._began_s = began
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, product_id in enumerate(self._product_ids):
                    due_s = number / self._rate if self._rate else 0.0
                    if (early_s := due_s - self.now_s()) > 0:
                        await asyncio.sleep(early_s)
                    tasks.create_task(self._read(number, product_id, due_s))
        finally:
            for lines in self._lines:
                lines.close()

    async def _read(self, number: int, product_id: int, due_s: float) -> None:
        process = number % len(self._lines)
        lines, sent_s = self._lines[process], 0.0

        def sent() -> None:
            nonlocal sent_s
            sent_s = self.now_s()
            self._sent += 1

        status, header = await lines.get(f"/products/{product_id}", sent)
        read = Read(number, product_id, process, due_s, sent_s, self.now_s(), status, layer_of(status, header))
        self._reads.append(read)


class Lines:
    """Connections to one process that stay open. A library would take longer for a request than the app for a hit."""

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(LINES)

    async def get(self, path: str, sent: Callable[[], None]) -> tuple[int, str]:
        """The status of the answer and its Cache-Status; NO_ANSWER if none comes.

        Args:
            sent: called when the request is on its way.
        """
        async with self._room:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    reader, writer = await self._connected()
                    try:
                        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._url.host}\r\n\r\n".encode())
                        sent()
                        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                        await reader.readexactly(int(header_of(head, "content-length") or 0))
                    except BaseException:
                        writer.close()
                        raise
            except (OSError, EOFError, TimeoutError):
                return NO_ANSWER, ""
            self._free.append((time.monotonic(), reader, writer))
            return int(head.split(" ", 2)[1]), header_of(head, "cache-status")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            used_s, reader, writer = self._free.pop()
            if time.monotonic() - used_s < IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._url.host, self._url.port)

    def close(self) -> None:
        """Close what is free."""
        for _, _, writer in self._free:
            writer.close()


def header_of(head: str, name: str) -> str:
    """A header's value from the head of an answer; empty if it is not there."""
    found = re.search(rf"^{name}: *(.*?)\r?$", head, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else ""


def layer_of(status: int, cache_status: str) -> str:
    """Which of LAYERS gave an answer, by its Cache-Status (RFC 9211): a hit whose ttl is below 0 is stale."""
    if status != httpx.codes.OK:
        return "failed"
    if not cache_status:
        return "database"
    said: dict[str, Any] = {found["name"]: found["value"] for found in _ITEM.finditer(cache_status.partition(";")[2])}
    if "hit" in said and float(said.get("ttl", 0)) < 0:
        return "stale"
    return str(said["detail"])


def processes_of(client: httpx.Client) -> list[str]:
    """The URL of each app process behind a client of the lab's, which asks them in turn."""
    urls: list[str] = []
    while True:
        asked = client.get("/health/live").request.url
        url = f"{asked.scheme}://{asked.host}:{asked.port}"
        if url in urls:
            return urls
        urls.append(url)


def counts_of(client: httpx.Client, headers: dict[str, str]) -> "pd.Series[float]":
    """What the caches of all app processes behind a client have counted, added up."""
    rows = [client.get("/caching", headers=headers).raise_for_status().json() for _ in processes_of(client)]
    return pd.DataFrame([row["counts"] for row in rows]).sum()


def wake(client: httpx.Client) -> None:
    """Have each process open its connections before it is measured: asks for products that there are not."""
    with Readers(processes_of(client), NO_PRODUCTS):
        pass


def fill(client: httpx.Client, product_ids: Sequence[int]) -> None:
    """Have some products read, many at a time. Raises httpx.HTTPStatusError."""
    for first in range(0, len(product_ids), AT_A_TIME):
        ids = ",".join(map(str, product_ids[first : first + AT_A_TIME]))
        client.get("/products", params={"ids": ids}).raise_for_status()
