"""What the driver tells of its commands, its connections and its servers: counted, and logged where it is bad.

A command runs in the context of whoever asked for it, so its line in the log has that request's trace; the same trace
goes to the server as the command's `comment`, and is found in its log and in `db.currentOp()`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import structlog
from pymongo import monitoring

from showcase.platform.slices import Gauge

log = structlog.get_logger()


class Watch:
    """The counts of one client."""

    def __init__(self, slow_s: float) -> None:
        self._commands = _Commands(slow_s)
        self._pool = _Pool()
        self._servers = _Servers()
        self.listeners = [self._commands, self._pool, self._servers]

    @property
    def connections_in_use(self) -> int:
        """How many connections calls have now."""
        return self._pool.connections["in_use"]

    def gauges(self) -> Sequence[Gauge]:
        """All counts, and who is up."""

        def gauge(name: str, help_: str, label: str, values: Mapping[str, float]) -> Gauge:
            return Gauge(name=f"showcase_mongo_{name}", help=help_, label=label, values=dict(values))

        return [
            gauge("commands_total", "Commands that were answered.", "command", self._commands.answered),
            gauge(
                "command_failures_total", "Commands that failed, or had no answer.", "command", self._commands.failures
            ),
            gauge("command_seconds_total", "What they took, all together.", "command", self._commands.seconds),
            gauge("connections", "Connections, and those of them in use.", "state", self._pool.connections),
            gauge("checkout_failures_total", "Calls that got no connection.", "reason", self._pool.refused),
            gauge("server_up", "Whether a server has answered the last heartbeat.", "server", self._servers.up),
        ]


class _Commands(monitoring.CommandListener):
    def __init__(self, slow_s: float) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self._slow_us = slow_s * 1e6

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.answered[event.command_name] += 1
        self._took(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.failures[event.command_name] += 1
        self._took(event)
        log.info("mongo command failed", command=event.command_name, code=event.failure.get("code"))

    def _took(self, event: monitoring.CommandSucceededEvent | monitoring.CommandFailedEvent) -> None:
        took_us = event.duration_micros
        self.seconds[event.command_name] += took_us / 1e6  # type: ignore[assignment]  # it counts in parts
        if took_us > self._slow_us:
            log.warning("mongo command is slow", command=event.command_name, took_ms=took_us / 1e3)


class _Pool(monitoring.ConnectionPoolListener):
    def __init__(self) -> None:
        self.connections: Counter[str] = Counter(open=0, in_use=0)
        self.refused: Counter[str] = Counter()

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        self.connections["open"] += 1

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        self.connections["open"] -= 1

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        self.connections["in_use"] += 1

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        self.connections["in_use"] -= 1

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        self.refused[event.reason] += 1

    def _nothing(self, event: object) -> None:
        """Of no interest."""

    pool_created = pool_ready = pool_cleared = pool_closed = _nothing
    connection_ready = connection_check_out_started = _nothing


class _Servers(monitoring.ServerHeartbeatListener):
    def __init__(self) -> None:
        self.up: dict[str, float] = {}

    def started(self, event: monitoring.ServerHeartbeatStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.ServerHeartbeatSucceededEvent) -> None:
        self._seen(event, is_up=True)

    def failed(self, event: monitoring.ServerHeartbeatFailedEvent) -> None:
        self._seen(event, is_up=False)

    def _seen(
        self, event: monitoring.ServerHeartbeatSucceededEvent | monitoring.ServerHeartbeatFailedEvent, *, is_up: bool
    ) -> None:
        server = "{}:{}".format(*event.connection_id)
        if self.up.get(server, is_up) != is_up:
            log.warning("mongo is up again" if is_up else "mongo is away", server=server)
        self.up[server] = float(is_up)
