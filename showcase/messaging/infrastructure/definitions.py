"""The topology as RabbitMQ's management imports it: `POST /api/definitions`, or the page "Import definitions"."""

from typing import Any

from showcase.messaging.domain import Topology


def definitions(topology: Topology, vhost: str = "/") -> dict[str, Any]:
    """Exchanges, queues and bindings; no users and no passwords.

    Once they are imported, `Broker.declare` of the same topology changes nothing.
    """
    lasting = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {"name": one.name, "type": one.type, "internal": False, "arguments": {}, **lasting}
            for one in topology.exchanges()
        ],
        "queues": [{"name": one.name, "arguments": dict(one.arguments), **lasting} for one in topology.declared()],
        "bindings": [
            {
                "source": one.exchange,
                "vhost": vhost,
                "destination": one.queue,
                "destination_type": "queue",
                "routing_key": one.key,
                "arguments": {},
            }
            for one in topology.bindings()
        ],
    }
