"""The processes of the system, and what an operator does once."""

import asyncio
import signal
import sys
from datetime import timedelta
from typing import Annotated

import typer

from showcase.cli.telling import database_told, operating, told
from showcase.kernel.principal import Principal, Scope

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def serve(
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535)] = 8000,
    fd: Annotated[int | None, typer.Option(help="A listening socket to take instead of host and port.")] = None,
    slices: Annotated[str, typer.Option(help="The patterns to serve, such as `shop,audit`; all if empty.")] = "",
) -> None:
    """Serve the app over HTTP."""
    with told("app") as settings:
        from showcase.app import create_app
        from showcase.composition import SLICES
        from showcase.platform.web.server import server
        from showcase.platform.worker import look_for_garbage_seldom

        app = create_app(settings, slices.split(",") if slices else SLICES)
        serving, listening = server(app, settings, host=host, port=port, fd=fd)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it again when it has stopped: that went well
            signal.signal(number, lambda *_: sys.exit(0))
        look_for_garbage_seldom()
        serving.run(sockets=[listening])


@app.command()
def relay() -> None:
    """Move events from the outboxes to RabbitMQ."""
    work("relay")


@app.command()
def worker(
    name: Annotated[
        str,
        typer.Argument(
            help="payment, stock, notice, shop, realtime, views, caching, invalidation, parking, audit, anchor, capture"
        ),
    ],
) -> None:
    """Handle the messages of one queue; look after something."""
    work(name)


@app.command()
def migrate() -> None:
    """Bring the database to the newest migration; harmless when it is there."""
    with told("migrate") as settings, database_told():
        from showcase import migrations

        migrations.upgrade(settings.url("postgres_url"))


@app.command()
def seed() -> None:
    """Load the catalogue and the households; harmless when they are there."""
    with told("seed") as settings, database_told():
        import psycopg

        from showcase.shop import catalogue

        with psycopg.connect(settings.url("postgres_url"), connect_timeout=10) as connection:
            seeded = catalogue.seed(connection)
        typer.echo(f"{seeded.products:,} products, {seeded.households:,} households")


@app.command()
def prune() -> None:
    """Remove what need not be kept any longer: published events, handled ones, old answers."""
    with told("prune") as settings, operating("prune"):
        from showcase import composition
        from showcase.platform.resources import Resources

        async def pruned() -> dict[str, int]:
            async with Resources(settings) as resources:
                return await composition.prune(resources)

        for what, rows in asyncio.run(pruned()).items():
            typer.echo(f"{what}: {rows:,}")


@app.command()
def token(
    subject: Annotated[str, typer.Argument(help="Whom it stands for, such as `households/7`.")],
    scope: Annotated[list[Scope], typer.Option(help="What it allows; may be given several times.")],
    minutes: Annotated[int, typer.Option(min=1, max=1_440)] = 60,
) -> None:
    """Issue an access token without a sign-in. It belongs to no session, so nothing but time ends it."""
    with told("token") as settings:
        import showcase.auth.wiring as auth

        async def issued() -> str:
            sign = await auth.signer(settings)
            return sign(Principal(subject=subject, scopes=frozenset(scope)), timedelta(minutes=minutes))

        typer.echo(asyncio.run(issued()))


def work(name: str) -> None:
    """Run a background process until it is told to stop."""
    with told(name) as settings:
        from showcase.composition import build_worker
        from showcase.platform.resources import Resources
        from showcase.platform.worker import run, run_in_loop

        async def main() -> None:
            async with Resources(settings) as resources:
                await run(name, build_worker(resources, name), drain_s=settings.drain_s)

        run_in_loop(main())
