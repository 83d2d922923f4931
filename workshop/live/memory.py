"""How much memory a process has and how much waits in it, looked at ten times a second."""

import re
import time
from collections.abc import Mapping
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
import pandas as pd
import psutil

EVERY_S = 0.1
WITHIN_S = 5.0
MIB = 1024 * 1024
_GAUGE = re.compile(r'^showcase_realtime_\w+\{what="([\w ]+)"\} (\S+)$', re.MULTILINE)


def process_at(url: str) -> psutil.Process:
    """The process of this lesson that listens there. Raises LookupError."""
    port = urlsplit(url).port
    for child in psutil.Process().children(recursive=True):
        try:
            listening = [one.laddr.port for one in child.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        except psutil.Error:  # it has just ended
            continue
        if port in listening:
            return child
    raise LookupError(f"no process of this lesson listens at port {port}")


def resident_mib(url: str) -> float:
    """The memory of the process that listens there, MiB (resident set)."""
    return float(process_at(url).memory_info().rss) / MIB


def gauges(url: str) -> Mapping[str, float]:
    """What an app process tells of its WebSockets at `/metrics`: sockets, waiting, told, dropped … Raises HTTPError."""
    text = httpx.get(f"{url}/metrics", timeout=WITHIN_S, trust_env=False).raise_for_status().text
    return {what: float(value) for what, value in _GAUGE.findall(text)}


class Watch:
    """Looks at processes while the block runs.

    Args:
        urls: of what they listen at, under the name of each.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._processes = {name: process_at(url) for name, url in urls.items()}
        self._rows: list[tuple[str, float, float]] = []
        self._stop = Event()
        self._thread = Thread(target=self._look, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._began = time.time()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(WITHIN_S)

    def frame(self) -> pd.DataFrame:
        """One row a look: `who`, `at_s` (since the beginning), `mib`."""
        return pd.DataFrame(list(self._rows), columns=["who", "at_s", "mib"])

    def _look(self) -> None:
        while True:
            for name, process in self._processes.items():
                self._rows.append((name, time.time() - self._began, process.memory_info().rss / MIB))
            if self._stop.wait(EVERY_S):
                return
