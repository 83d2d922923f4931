"""Redis, twice: `redis-cache` evicts and keeps nothing on disk, `redis-state` keeps everything."""

import signal
from collections.abc import Mapping

import redis

from workshop.stack.local.server import CONFIG, USER, Launch, Place, environment, find_command, own, secret_file
from workshop.stack.model import NotReady, Urls

PROGRAM = "redis-server"


class Redis:
    """One Redis server.

    Args:
        name: `redis-cache` or `redis-state`; also the name of its config file.
    """

    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    stop_within_s = 10.0

    def __init__(self, name: str) -> None:
        self.name = name
        self.variable = f"SHOWCASE_{name.upper().replace('-', '_')}_URL"

    def find(self) -> str:
        return str(find_command(PROGRAM, packages=PROGRAM))

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {self.variable: f"redis://{USER}:{password}@127.0.0.1:{ports['main']}/0"}

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        config = secret_file(
            place.data / "redis.conf",
            f'include "{CONFIG / "redis" / self.name}.conf"\n'
            f"bind 127.0.0.1\nport {place.ports['main']}\n"
            f'dir "{place.data}"\n'
            # Nobody logs in as `default`, but the client that replays the append-only file is it: without rights it
            # would leave out every transaction and script.
            f"user default off ~* &* +@all\nuser {USER} on >{place.password} ~* &* +@all\n",
        )
        return Launch(argv=[find_command(PROGRAM, packages=PROGRAM), config], env=environment(), cwd=place.data)

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 2.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            with redis.Redis.from_url(
                urls[self.variable], socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            ) as client:
                return str(client.info("server")["redis_version"])
        except redis.RedisError as error:
            raise NotReady(str(error)) from error
