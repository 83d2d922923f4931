"""The suppliers' prices in SQL Server, as far as one gets without a SQL Server: config, and envelopes as documented."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from showcase.audit.infrastructure.connectors import KafkaConnect, SqlServerSource
from showcase.kernel.changes import Change, read
from workshop.lab.lab import Lab

WITHIN_S = 60.0
ENVELOPE = MappingProxyType(
    {
        "before": {"supplier_id": 1, "price": "2.49"},
        "after": {"supplier_id": 1, "price": "2.59"},
        "source": {
            "version": "3.6.1.Final",
            "connector": "sqlserver",
            "name": "shop",
            "ts_ms": 1514034000000,
            "snapshot": "false",
            "db": "pricing",
            "schema": "dbo",
            "table": "price_list",
            "change_lsn": "00000027:00000ac0:0002",
            "commit_lsn": "00000027:00000ac0:0007",
            "event_serial_no": 2,
        },
        "op": "u",
        "ts_ms": 1514034000100,
        "transaction": None,
    }
)
"""An update, in the form that Debezium's documentation of the connector gives; its time is of the shop's day."""
NOBODY = MappingProxyType(
    {
        "database.hostname": "127.0.0.1",
        "database.port": "1",
        "database.user": "u",
        "database.password": "p",
        "driver.loginTimeout": "1",  # seconds; by itself the driver would try for fifteen, twice
        "driver.connectRetryCount": "0",
    }
)
"""In place of what only the Connect worker's environment knows: a place where no server listens."""


def change() -> Change:
    """What our reader makes of the envelope."""
    found = read(b'{"supplier_id": 1}', json.dumps(dict(ENVELOPE)).encode())
    assert found is not None
    return found


def objections(lab: Lab, config: Mapping[str, str]) -> list[str]:
    """Which settings the real connector objects to, when Kafka Connect has it look at them; each once."""
    connect = KafkaConnect(lab.namespace.urls["SHOWCASE_CONNECT_URL"])
    looking = connect.check(SqlServerSource(name="shop").connector, {**config, **NOBODY})
    with ThreadPoolExecutor(1, "objections") as pool:  # a notebook's own event loop is busy running the notebook
        wrong = pool.submit(asyncio.run, looking).result(WITHIN_S)
    return sorted({line.partition(":")[0] for line in wrong})
