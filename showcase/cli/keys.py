"""`showcase keys …`"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from showcase.cli.telling import operating, told
from showcase.platform.settings import Settings

if TYPE_CHECKING:
    from showcase.auth.infrastructure.keys import SqlKeys

keys = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")


@keys.command("list")
def list_keys() -> None:
    """Show the keys that sign access tokens."""
    with told("keys") as settings:
        _on_keys(settings)


@keys.command()
def rotate() -> None:
    """Have the next key sign from now on; tokens of the present one stay good until they expire."""
    with told("keys") as settings, operating("keys rotate"):
        _on_keys(settings, lambda keys: keys.rotate(settings.access_lifetime))


@keys.command(context_settings={"ignore_unknown_options": True})  # one kid in 64 begins with "-"
def revoke(kid: Annotated[str, typer.Argument(help="Of a key that somebody else has got hold of.")]) -> None:
    """Drop a key: every token that it has signed is refused, in every process within seconds."""
    with told("keys") as settings, operating("keys revoke"):
        _on_keys(settings, lambda keys: keys.revoke(kid))


def _on_keys(settings: Settings, change: "Callable[[SqlKeys], Awaitable[object]] | None" = None) -> None:
    """Change the keys, if that is asked for, then show what there is."""
    import showcase.auth.wiring as auth
    from showcase.platform.resources import Resources

    async def changed() -> None:
        async with Resources(settings) as resources:
            keys = auth.keys(resources)
            await keys.ensure()
            if change is not None:
                await change(keys)
            for key in await keys.load():
                typer.echo(f"{key.state:8}  {key.public.algorithm:6}  {key.public.kid}")

    asyncio.run(changed())
