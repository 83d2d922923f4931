"""`showcase audit letters …`: messages that became no record, and replaying them.

What they say may come from strangers: nothing of it reaches the terminal that could steer it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from showcase.cli.messages import plain, table
from showcase.cli.telling import told

if TYPE_CHECKING:
    from showcase.audit.application.ports import Message
    from showcase.audit.application.replaying import Dead, LetterBox

letters = typer.Typer(no_args_is_help=True, help="Messages that became no record.")

T = TypeVar("T")
SHOWN = 4_000
"""So much of a key, a header or a value is shown: characters of a text, bytes of what is none."""


@letters.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The newest letters, each message once. `recorded`: the recorder has passed its replay and put nothing away."""
    from showcase.audit.application.replaying import overview

    found = asked(overview)
    if as_json:
        typer.echo(json.dumps([_fields(one) for one in found[:limit]], indent=2))  # in ASCII: steers no terminal
        return
    rows = [
        (
            one.place,
            one.state,
            f"{one.newest.size_bytes:,}",
            f"{one.newest.put_away_at:%Y-%m-%d %H:%M:%S}",
            one.newest.reason,
        )
        for one in found[:limit]
    ]
    table(("place", "state", "bytes", "put away (UTC)", "reason"), rows)
    if (more := len(found) - limit) > 0:
        typer.echo(f"there are {more:,} more: --limit {min(len(found), 10_000)}")


@letters.command()
def show(place: Annotated[str, typer.Argument(help="As the list has it.", show_default=False)]) -> None:
    """All that is known of one letter, and the beginning of what is in it."""
    from showcase.audit.application.replaying import find

    async def opened(box: "LetterBox") -> "tuple[Dead, Message]":
        (one,) = await find(box, [place])
        return one, await box.message(one.newest)

    one, message = asked(opened)
    for name, value in _fields(one).items():
        typer.echo(f"{name}: {plain(str(value))}")
    for header, content in message.headers:
        typer.echo(f"header {plain(header)}: {shown(content)}")
    typer.echo(f"key: {shown(message.key)}")
    typer.echo(f"value: {shown(message.value)}")


@letters.command()
def replay(
    places: Annotated[list[str] | None, typer.Argument(metavar="[PLACE]...", help="As the list has them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are open, or have failed again.")] = False,
) -> None:
    """Have letters recorded once more, when their cause is mended. A change never becomes two records."""
    from showcase.audit.application.replaying import replay, replay_all

    if bool(places) == all_:
        raise typer.BadParameter("name places, or say --all")
    count = asked(replay_all) if not places else asked(lambda box: replay(box, places))
    typer.echo(f"{count:,} replayed")


def _fields(one: "Dead") -> dict[str, object]:
    return {
        "place": one.place,
        "state": one.state.value,
        "reason": one.newest.reason,
        "bytes": one.newest.size_bytes,
        "put_away_at": one.newest.put_away_at.isoformat(),
        "replays": one.replays,
        "newest_place": one.newest.place,
    }


def shown(content: bytes | None) -> str:
    """Text on one line, or hexadecimal, and not too much of it."""
    if content is None:
        return "none"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        more = f" … {len(content):,} bytes" if len(content) > SHOWN else ""
        return f"0x{content[:SHOWN].hex()}{more}"
    return plain(text[:SHOWN]) + (f" … {len(content):,} bytes" if len(text) > SHOWN else "")


def asked(call: "Callable[[LetterBox], Awaitable[T]]") -> T:
    """What one call comes to that is made with the letters."""
    with told("audit") as settings:
        import showcase.audit.wiring as audit

        async def answered() -> T:
            return await call(audit.letter_box(settings))

        return asyncio.run(answered())
