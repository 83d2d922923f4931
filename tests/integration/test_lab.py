"""A lesson's lab on real servers: what it starts ends with it, also when its kernel is killed."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.integration.stacks import wait_until
from workshop.lab import Lab
from workshop.stack import Stack, StackError
from workshop.stack.namespace import leftovers

LESSON = """
import json, sys, time
from workshop.lab import Lab
lab = Lab("99", capture=["orders"])
lab.app()
lab.start("relay", "payment")
pids = [process.popen.pid for name in lab.running() for process in lab._processes.named(name)]
print(json.dumps({"namespace": lab.namespace.name, "pids": pids}), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_lesson_whose_kernel_ends(stack: Stack, number: signal.Signals) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", LESSON], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with kernel:
        assert kernel.stdout is not None
        assert "8 servers are up" in kernel.stdout.readline()
        told = json.loads(kernel.stdout.readline())
        assert leftovers(stack.urls, told["namespace"])
        kernel.send_signal(number)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in told["pids"]))
    wait_until(lambda: leftovers(stack.urls, told["namespace"]) == [])


def test_a_lesson_takes_orders_through_all_processes_and_leaves_nothing(stack: Stack) -> None:
    lab = Lab("99")
    try:
        shop = lab.app(processes=2)
        lab.start("relay", "payment", "stock", "shop", "realtime")
        assert lab.running() == {"app": 2, "relay": 1, "payment": 1, "stock": 1, "shop": 1, "realtime": 1}
        counter, tap = lab.follow("orders"), lab.tap("shop.order.#")
        load = lab.baskets(limit=10)
        sent = lab.replay(load)
        assert sent.status.tolist() == [201] * 10
        assert sent.basket_id.tolist() == load.basket_id.unique().tolist()
        lab.until(lambda: set(lab.sql("SELECT status FROM orders").status) == {"packed"}, within="30 s")
        lab.until(lambda: len(counter.frame()) == 40)
        steps = [f"shop.order.{step}.v1" for step in ("placed", "paid", "reserved", "packed")]
        assert tap.frame().groupby("subject").type.apply(list).tolist() == [steps] * 10
        assert lab.sql("SELECT sum(total_cents)::int AS n FROM orders").n[0] == load.total_cents.sum()
        assert shop.get(f"/orders/{sent.order_id[0]}", headers=lab.as_("staff/ada")).json()["status"] == "packed"
        assert lab.queues().consumers.to_dict() == {
            "payment": 1,
            "stock": 1,
            "notice": 0,
            "shop": 1,
            "realtime": 1,
            "views": 0,
            "caching": 0,
            "parking": 0,
        }
        lab.scale("payment", 3)
        assert lab.queues().consumers["payment"] == 3
        lab.scale("payment", 0)
        lab.kill("stock")
        assert "payment" not in lab.running()
        with pytest.raises(StackError, match="no stock runs"):
            lab.kill("stock")
        with pytest.raises(StackError, match="others use rabbitmq as well"):
            lab.server("rabbitmq")
    finally:
        lab.close()
    lab.close()
    assert leftovers(stack.urls, lab.namespace.name) == []


def test_a_basket_is_sent_again_when_the_app_dies_and_is_one_order(stack: Stack) -> None:
    lab = Lab("99")
    try:
        lab.app(processes=2)

        def kill_one(replay: object) -> None:
            if lab.running()["app"] == 2:
                lab.kill("app")

        sent = lab.replay(lab.baskets(limit=40), rate=40, then=kill_one)
        assert lab.running()["app"] == 1
        # What the dead process was to take, and what it took without a word, went to the other: none is there twice.
        assert set(sent.status) == {201}
        assert sent.tries.max() > 1
        assert sent.order_id.is_unique
        assert sorted(lab.sql("SELECT reference FROM orders").reference) == sorted(sent.basket_id.astype(str))
    finally:
        lab.close()


def test_a_lesson_has_a_server_of_its_own_to_break() -> None:
    lab = Lab("99", private=["redis-state"])
    try:
        lab.server("redis-state").pause()
        assert lab.server("redis-state").status().phase == "paused"
        lab.server("redis-state").resume()
        assert lab.redis.ping()
        assert os.environ.get("SHOWCASE_REDIS_STATE_URL") != lab.namespace.urls["SHOWCASE_REDIS_STATE_URL"]
    finally:
        lab.close()


def test_a_process_that_does_not_get_ready_is_told_with_its_last_words() -> None:
    lab = Lab("99")
    try:
        with pytest.raises(StackError, match=r"relay has ended: .*RABBITMQ_URL is not set"):
            lab.start("relay", rabbitmq_url="")
    finally:
        lab.close()
