"""Every local server there is."""

from workshop.stack.local.connect import Connect
from workshop.stack.local.kafka import Kafka
from workshop.stack.local.mail import Mail
from workshop.stack.local.mongo import Mongo
from workshop.stack.local.postgres import Postgres
from workshop.stack.local.rabbitmq import RabbitMQ
from workshop.stack.local.redis import Redis
from workshop.stack.local.server import Server

SERVERS_BY_NAME: dict[str, Server] = {
    server.name: server
    for server in (
        Postgres(),
        Mongo(),
        Redis("redis-cache"),
        Redis("redis-state"),
        RabbitMQ(),
        Kafka(),
        Connect(),
        Mail(),
    )
}
