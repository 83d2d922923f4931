"""`showcase audit …`: how changes are captured, and recorded.

Exit codes of `connectors plan`: 0 when there is nothing to do, 2 when something is to be done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from showcase.cli import audit_letters, audit_personal
from showcase.cli.audit_proof import proof
from showcase.cli.messages import plain, table
from showcase.cli.processes import work
from showcase.cli.telling import told

if TYPE_CHECKING:
    from showcase.audit.application.capture import Capture

audit = typer.Typer(no_args_is_help=True, help="Every change of a row: captured, recorded.")
connectors = typer.Typer(no_args_is_help=True, help="What reads the databases' logs, in Kafka Connect.")
audit.add_typer(connectors, name="connectors")
audit.registered_commands += proof.registered_commands
audit.add_typer(audit_letters.letters, name="letters")
audit.command()(audit_personal.erase)
audit.command()(audit_personal.subjects)

T = TypeVar("T")
PENDING = 2


class Database(StrEnum):
    """Whose changes."""

    POSTGRES = "postgres"
    SQLSERVER = "sqlserver"


Source = Annotated[Database, typer.Option(help="The shop's database, or the one of the suppliers' prices.")]


@audit.command()
def record() -> None:
    """Store captured changes as audit records, until told to stop: `showcase worker audit`."""
    work("audit")


@connectors.command()
def plan(source: Source = Database.POSTGRES) -> None:
    """Show what `apply` would do, and change nothing. Exit code 2 if there is anything."""
    found = captured(source, lambda capture: capture.plan())
    tell(found.connector)
    tell(found.topics)
    tell(f"refused: {line}" for line in found.refused)
    if found:
        raise typer.Exit(PENDING)
    typer.echo("nothing to do")


@connectors.command()
def apply(source: Source = Database.POSTGRES) -> None:
    """Make topics and connector as they are to be, and wait until it runs; harmless when they are."""
    done = captured(source, lambda capture: capture.apply())
    tell((*done.topics, *done.connector))
    if not done:
        typer.echo("nothing to do")


@connectors.command()
def status(source: Source = Database.POSTGRES) -> None:
    """How the connector, its tasks and its replication slot are. Exit code 1 unless all run."""
    from showcase.audit.application.capture import RUNNING, named

    async def looked(capture: "Capture") -> bool:
        parts, slot = await capture.status()
        name = capture.source.connector
        table(
            ("connector", "state", "worker", "why"),
            ((named(name, one), one.state, one.worker, one.why) for one in parts),
        )
        if slot is not None:
            typer.echo()
            lag, kept = (f"{count:,} bytes" for count in (slot.lag_bytes, slot.kept_bytes))
            row = (slot.name, "yes" if slot.active else "no", slot.wal_status, lag, f"{slot.lag_s:.1f} s", kept)
            table(("slot", "active", "log", "behind", "for", "kept for it"), [row])
        return len(parts) > 1 and all(part.state == RUNNING for part in parts)

    if not captured(source, looked):
        raise typer.Exit(1)


@connectors.command()
def pause(source: Source = Database.POSTGRES) -> None:
    """Capture nothing until `resume`. The database keeps its log as long, up to its limit."""
    captured(source, lambda capture: capture.pause())


@connectors.command()
def resume(source: Source = Database.POSTGRES) -> None:
    """Go on where it was paused or stopped, and wait until it runs."""
    captured(source, lambda capture: capture.resume())


@connectors.command()
def restart(source: Source = Database.POSTGRES) -> None:
    """Start again what has failed."""
    from showcase.audit.application.capture import named

    async def restarted(capture: "Capture") -> list[str]:
        return [f"{named(capture.source.connector, part)}: {part.why}" for part in await capture.restart()]

    tell(captured(source, restarted) or ["nothing has failed"])


def captured(source: Database, work: "Callable[[Capture], Awaitable[T]]") -> T:
    """What something comes to that is done with a source's capture, with connections of its own."""
    with told("audit") as settings:
        from showcase import composition
        from showcase.platform.resources import Resources

        async def worked() -> T:
            async with Resources(settings) as resources:
                return await work(composition.capture(resources, source))

        return asyncio.run(worked())


def tell(lines: Iterable[str]) -> None:
    """Print lines, none of which can steer a terminal."""
    for line in lines:
        typer.echo(plain(line))
