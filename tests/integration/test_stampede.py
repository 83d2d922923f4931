"""What the lesson on caching measures with, on real servers: a slow database, a naive crowd, an answer that expires."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from showcase.caching import Options
from tests.integration.system import PRODUCT, wait_for
from workshop import holding
from workshop.expiring import Reading, read_steadily
from workshop.naive.aside import Crowd, Servers
from workshop.stack import Stack
from workshop.stack.namespace import Namespace


@pytest.fixture(scope="module")
def namespace(stack: Stack) -> Iterator[Namespace]:
    with stack.namespace() as one:
        yield one


def read(url: str) -> int:
    with psycopg.connect(url, connect_timeout=10) as db:
        return len(db.execute("SELECT brand FROM products WHERE product_id = %s", (PRODUCT,)).fetchall())


def test_nobody_reads_a_product_while_the_table_is_held_and_each_row_that_is_read_is_counted(
    namespace: Namespace,
) -> None:
    url = namespace.postgres_url
    before = holding.rows_read(url)
    with ThreadPoolExecutor(3) as threads, holding.Held(url) as table:
        readers = [threads.submit(read, url) for _ in range(3)]
        wait_for(lambda: holding.waiting(url) == 3)
        assert not any(reader.done() for reader in readers)
        table.free()
        assert [reader.result(10) for reader in readers] == [1, 1, 1]
    assert holding.waiting(url) == 0
    assert holding.rows_read(url) - before == 3


def test_a_row_is_counted_although_its_reader_is_still_connected(namespace: Namespace) -> None:
    before = holding.rows_read(namespace.postgres_url)
    with psycopg.connect(namespace.postgres_url, connect_timeout=10, autocommit=True) as db:
        for _ in range(3):
            db.execute("SELECT brand FROM products WHERE product_id = %s", (PRODUCT,))
        assert holding.rows_read(namespace.postgres_url) - before == 3


def test_with_cache_aside_everybody_who_finds_nothing_loads(namespace: Namespace) -> None:
    url = namespace.postgres_url
    servers = Servers(url, namespace.urls["SHOWCASE_REDIS_CACHE_URL"], namespace.redis_prefix)
    before = holding.rows_read(url)
    with holding.Held(url) as table, Crowd(servers, PRODUCT, readers=20) as crowd:
        wait_for(lambda: holding.waiting(url) == 20)
        free_s = crowd.now_s()
        table.free()
    frame = crowd.frame()
    assert frame.layer.tolist() == ["loaded"] * 20
    assert frame.process.tolist() == [0] * 10 + [1] * 10
    assert frame.answered_s.min() > free_s > frame.sent_s.max() > 0
    assert holding.rows_read(url) - before == 20
    with Crowd(servers, PRODUCT, readers=4) as crowd:
        pass
    assert crowd.frame().layer.tolist() == ["far"] * 4


def steady(namespace: Namespace, early: float) -> Reading:
    options = Options(duration=timedelta(seconds=0.3), early=early)
    return read_steadily(namespace.env, f"beta {early}", options, load_s=0.05, rate=400, seconds=0.9)


def test_readers_wait_for_an_answer_that_expires_unless_it_is_refreshed_early(namespace: Namespace) -> None:
    plain, early = steady(namespace, 0), steady(namespace, 1)
    assert len(plain.frame) == len(early.frame) == 360
    assert plain.waited > early.waited
    assert plain.loads >= 2
    assert early.loads >= 2
    waited = plain.frame[plain.frame.has_waited]
    assert set(waited.layer) <= {"loaded", "far"}
    assert waited.took_ms.max() > 30
