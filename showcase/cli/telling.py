"""What goes wrong, told as a person at a terminal wants to hear it."""

import os
import pwd
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import typer
from pydantic import ValidationError

from showcase.kernel import trace
from showcase.kernel.acting import Acting, acting
from showcase.kernel.errors import DomainError, Unavailable
from showcase.platform.settings import Misconfigured, Settings


@contextmanager
def told(process: str) -> Iterator[Settings]:
    """Settings from the environment; what goes wrong becomes one clear line and an exit code."""
    from showcase.platform import logs

    logs.configure(process)
    try:
        yield Settings()
    except ValidationError as error:
        for wrong in error.errors():
            name = "".join(f"SHOWCASE_{str(part).upper()}: " for part in wrong["loc"])
            typer.echo(f"error: {name}{wrong['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(2) from None
    except Misconfigured as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except DomainError as error:
        typer.echo(f"error: {error.detail}", err=True)
        raise typer.Exit(1) from None
    except TimeoutError:
        typer.echo("error: what was in flight did not finish in time", err=True)
        raise typer.Exit(1) from None


def operating(command: str) -> AbstractContextManager[None]:
    """Within the block it is an operator who acts, by a command such as `keys rotate`: the user of this process."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container the user may have no name
        user = str(os.getuid())
    return acting(Acting(actor=f"operators/{user}", reason=f"showcase {command}", traceparent=trace.current()))


@contextmanager
def database_told() -> Iterator[None]:
    """What psycopg says is wrong with the database, as an error of the domain."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"the database: {str(error).strip().splitlines()[0]}") from error
