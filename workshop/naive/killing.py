"""Who kills the naive services, with SIGKILL and at moments of its own choosing, and starts them again.

A process that is killed finishes nothing, runs no `finally`, and says no goodbye. Whatever it had told a server, the
server goes on with; whatever it had not, nobody will ever.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from workshop.naive.orders import WITHIN_S, Basket, Servers, Take

FIRST_S = 0.02
ANSWERS_WITHIN_S = 10.0
ENDS_WITHIN_S = 30.0
# The parent may be a notebook, with threads and locks that a plain fork would copy: a small server forks instead.
_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["workshop.naive.killing", "workshop.naive.charges"])


class Died(Exception):
    """The service is dead, and its customer has no answer."""


class Service:
    """A process that takes baskets, one after the other."""

    def __init__(self, take: Take, servers: Servers) -> None:
        self._ours, theirs = _PROCESSES.Pipe()
        self._process = _PROCESSES.Process(target=_serve, args=(take, servers, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, basket: Basket, *, dies_after_s: float | None = None) -> None:
        """Have it take a basket.

        Args:
            dies_after_s: kill it so long after it was asked, if it has not answered by then.

        Raises Died.
        """
        try:
            self._ours.send(basket)
            if not self._ours.poll(ANSWERS_WITHIN_S if dies_after_s is None else dies_after_s):
                self.kill()
            self._ours.recv()
        except (EOFError, OSError) as error:
            raise Died from error

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join(ENDS_WITHIN_S)

    def close(self) -> None:
        """End it; what it holds does not matter."""
        self.kill()
        self._ours.close()


def taken_under_kills(
    take: Take, servers: Servers, baskets: Sequence[Basket], *, every: int = 3, seed: int = 4
) -> tuple[int, int]:
    """Have baskets taken by a service that is killed in the middle of every third one, say.

    Its customer then asks again, as customers do, until there is an answer.

    Args:
        every: this one, and then each so many later.
        seed: of the moments; they lie anywhere in the time that a basket takes.

    Returns how often it was killed, and how many baskets were answered: all of them.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    service, kills, took_s = Service(take, servers), 0, [FIRST_S]
    try:
        for number, basket in enumerate(baskets, 1):
            dies_after_s = chance.uniform(0, statistics.median(took_s)) if number % every == 0 else None
            began_s = time.monotonic()
            try:
                service.ask(basket, dies_after_s=dies_after_s)
                took_s.append(time.monotonic() - began_s)
            except Died:
                kills += 1
                service.close()
                service = Service(take, servers)
                service.ask(basket)
    finally:
        service.close()
    return kills, len(baskets)


def worked_under_kills(
    work: Callable[..., None], *arguments: Any, progress: Callable[[], int], kills: int, until: int, seed: int = 4
) -> None:
    """Have work done by a process that is killed again and again, and in the end by one that may finish.

    Args:
        work: a function of a module; it comes back when there is nothing left to do.
        progress: how much is done; a process is killed a moment after it has done something.
        kills: how often.
        until: kill no more once so much is done.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(kills):
        before = progress()
        if before >= until:
            break
        process = _PROCESSES.Process(target=work, args=arguments, daemon=True)
        process.start()
        deadline_s = time.monotonic() + ANSWERS_WITHIN_S
        while progress() == before and process.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, FIRST_S))
        process.kill()
        process.join(ENDS_WITHIN_S)
    process = _PROCESSES.Process(target=work, args=arguments, daemon=True)
    process.start()
    process.join(ENDS_WITHIN_S)
    if process.exitcode != 0:
        process.kill()
        raise RuntimeError(f"{work.__name__} did not come to its end: exit code {process.exitcode}")


def _serve(take: Take, servers: Servers, theirs: "Connection[Any, Any]") -> None:
    """The service's main loop; it ends with whoever asks."""
    with psycopg.connect(servers.postgres, connect_timeout=int(WITHIN_S), autocommit=True) as db:
        while True:
            try:
                basket = theirs.recv()
            except EOFError:
                return
            take(db, servers.rabbitmq, basket)
            theirs.send("taken")
