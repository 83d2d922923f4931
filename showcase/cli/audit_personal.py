"""`showcase audit erase` and `showcase audit subjects`: personal data in the audit, and its end."""

import asyncio
from typing import Annotated

import typer

from showcase.cli.messages import plain, table
from showcase.cli.telling import operating, told

DEFAULT_LIMIT = 50


def erase(
    subject: Annotated[str, typer.Argument(help="`households/7`; its account, if it still has one, goes with it.")],
    reason: Annotated[str, typer.Option(help="Why. It is kept for good: nothing personal in it.")],
) -> None:
    """Destroy a subject's key: what the audit has recorded of it stays, its personal values are gone for good."""
    from showcase import composition
    from showcase.audit.domain.personal import SUBJECT_CHARACTERS
    from showcase.platform.resources import Resources

    if not subject.isprintable() or not 0 < len(subject) <= SUBJECT_CHARACTERS:
        raise typer.BadParameter(f"a subject is 1 to {SUBJECT_CHARACTERS} characters that can be printed")
    if not reason.strip() or not reason.isprintable():
        raise typer.BadParameter("say why, in one line")
    with told("audit") as settings, operating("audit erase"):

        async def erased() -> None:
            async with Resources(settings) as resources:
                for one in await composition.erase(resources, subject, reason):
                    when = "erased" if one.is_new else f"was erased already, at {one.at.isoformat()}"
                    typer.echo(f"{plain(one.subject)}: {when}")

        asyncio.run(erased())
    typer.echo(f"consumers that run may seal with the key for {settings.audit_key_cache_s:g} s more")


def subjects(
    after: Annotated[str, typer.Option(help="Those whose name comes after this one.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = DEFAULT_LIMIT,
) -> None:
    """Whose personal data is recorded: how many have a key, how many were erased, and some of them by name."""
    from showcase.audit import wiring
    from showcase.platform.resources import Resources

    with told("audit") as settings:

        async def looked() -> None:
            async with Resources(settings) as resources:
                keys = wiring.subjects(resources)
                live, erased = await keys.count()
                found = await keys.all(after, limit)
            typer.echo(f"{live:,} with a key, {erased:,} erased")
            if found:
                table(
                    ("subject", "since", "erased"),
                    (
                        (one.subject, f"{one.created_at:%F %T}", f"{one.erased_at:%F %T}" if one.erased_at else "-")
                        for one in found
                    ),
                )

        asyncio.run(looked())
