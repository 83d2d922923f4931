"""`showcase messages …`: what an operator sees and does, as over HTTP; and `showcase topology …`.

What messages say may come from strangers: nothing of it reaches the terminal that could steer it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from showcase.cli.telling import operating, told

if TYPE_CHECKING:
    from showcase.messaging.application.operations import Operations
    from showcase.messaging.application.parking_lot import Entry, Place

messages = typer.Typer(no_args_is_help=True, help="Queues, outboxes, and messages that nobody could handle.")
topology = typer.Typer(no_args_is_help=True, help="What queues there are, and who gets which messages.")

T = TypeVar("T")
Queue = Annotated[str | None, typer.Option(help="Whose consumer failed, or `outbox:SCHEMA`.")]
Type = Annotated[str | None, typer.Option("--type", help="Of event.")]
Id = Annotated[str, typer.Argument(help="As the list has it.", show_default=False)]


@messages.command()
def queues() -> None:
    """How many messages wait in each queue, and how many consumers it has."""
    found = asked(lambda operations: operations.queue_states())
    rates = [("-", "-") if one.rate is None else tuple(f"{rate:,.1f}" for rate in one.rate) for one in found]
    rows = [(one.name, f"{one.ready:,}", str(one.consumers), *rate) for one, rate in zip(found, rates, strict=True)]
    table(("queue", "ready", "consumers", "in/s", "out/s"), rows)


@messages.command()
def outboxes() -> None:
    """How many events wait in each outbox, and for how long."""
    found = asked(lambda operations: operations.outbox_states())
    table(
        ("outbox", "waiting", "oldest", "parked"),
        (
            (name, f"{one.waiting:,}", f"{one.oldest.total_seconds():,.1f} s" if one.oldest else "-", f"{one.parked:,}")
            for name, one in found.items()
        ),
    )


@messages.command()
def parked(
    queue: Queue = None,
    type_: Type = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
) -> None:
    """Messages that nobody could handle or publish, the newest first."""
    from showcase.messaging.api import cursor_after, place_of
    from showcase.messaging.application.parking_lot import Which

    async def page(operations: "Operations") -> "tuple[Sequence[Entry], Place | None]":
        before = None if cursor is None else place_of(cursor)
        return await operations.parked(Which(queue=queue, type=type_), before, limit)

    entries, following = asked(page)
    rows = [(one.id, one.queue, one.type, f"{one.parked_at:%Y-%m-%d %H:%M:%S}", one.reason) for one in entries]
    table(("id", "queue", "type", "parked (UTC)", "reason"), rows)
    if following is not None:
        typer.echo(f"there are more: --cursor {cursor_after(following)}")


@messages.command()
def show(message_id: Id) -> None:
    """All that is known of one message."""
    from showcase.messaging.api import DetailsModel

    found = DetailsModel.of(asked(lambda operations: operations.message(message_id)))
    typer.echo(json.dumps(found.model_dump(mode="json"), indent=2))  # in ASCII: steers no terminal


@messages.command()
def replay(message_id: Id) -> None:
    """Send a message back to the queue it came from."""
    from showcase.messaging.application.operations import OPERATOR

    with operating("messages replay"):
        asked(lambda operations: operations.replay(message_id, OPERATOR))
    typer.echo("1 replayed")


@messages.command("replay-all")
def replay_all(queue: Queue = None, type_: Type = None) -> None:
    """Send back all that are parked now, or some of them, the oldest first."""
    from showcase.messaging.application.operations import OPERATOR
    from showcase.messaging.application.parking_lot import Which

    which = Which(queue=queue, type=type_)
    with operating("messages replay-all"):
        done = asked(lambda operations: operations.replay_all(which, OPERATOR))
    typer.echo(f"{done.replayed:,} replayed{'; there are more: run it again' if done.more else ''}")


@messages.command()
def discard(message_id: Id, reason: Annotated[str, typer.Option(help="Why; it is written down.")]) -> None:
    """Give a message up."""
    from showcase.messaging.application.operations import OPERATOR

    with operating("messages discard"):
        asked(lambda operations: operations.discard(message_id, OPERATOR, reason))
    typer.echo("1 discarded")


@topology.command()
def definitions() -> None:
    """Print what RabbitMQ's management can import: exchanges, queues and bindings."""
    with told("topology") as settings:
        from showcase import composition

        typer.echo(json.dumps(composition.definitions(settings), indent=2))


@topology.command()
def asyncapi() -> None:
    """Print the description of all events and queues (AsyncAPI 3)."""
    with told("topology") as settings:
        from showcase import composition

        typer.echo(json.dumps(composition.asyncapi(settings), indent=2, ensure_ascii=False))


def asked(call: "Callable[[Operations], Awaitable[T]]") -> T:
    """What one call of the operations returns, with connections of its own."""
    with told("messages") as settings:
        from showcase import composition
        from showcase.platform.resources import Resources

        async def answered() -> T:
            async with Resources(settings) as resources:
                return await call(composition.operations(resources))

        return asyncio.run(answered())


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their names, each column as wide as it has to be."""
    lines = [[plain(cell) for cell in row] for row in (names, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """Text on one line, and without what would steer a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
