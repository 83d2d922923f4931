"""`showcase documents …`"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from showcase.cli.telling import told

if TYPE_CHECKING:
    from showcase.platform.resources import Resources

documents = typer.Typer(no_args_is_help=True, help="What is in MongoDB.")

T = TypeVar("T")


@documents.command()
def apply() -> None:
    """Make the collections, validators and indexes that are declared; harmless when they are there."""
    from showcase import composition

    applied = done(composition.apply_documents)
    for what, names in (("created", applied.created), ("changed", applied.changed), ("left over", applied.left_over)):
        typer.echo(f"{what}: {', '.join(names) or 'nothing'}")


@documents.command()
def rebuild(
    from_nothing: Annotated[
        bool, typer.Option("--from-nothing", help="Remove all of them first: whoever reads meanwhile misses some.")
    ] = False,
) -> None:
    """Make the views of all orders anew from PostgreSQL, while orders arrive and views are read."""
    from showcase import composition

    rebuilt = done(lambda resources: composition.rebuild_views(resources, from_nothing=from_nothing))
    typer.echo(f"{rebuilt.written:,} written, {rebuilt.newer:,} newer by then, {rebuilt.removed:,} removed")


def done(work: "Callable[[Resources], Awaitable[T]]") -> T:
    """What something comes to that is done with connections of its own."""
    with told("documents") as settings:
        from showcase.platform.resources import Resources

        async def worked() -> T:
            async with Resources(settings) as resources:
                return await work(resources)

        return asyncio.run(worked())
