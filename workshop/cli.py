"""The command line of the workshop: bring the servers up, look at them, break them, take them down."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from workshop.stack import Phase, ServerStatus, StackError
from workshop.stack.model import CURES, Backend
from workshop.stack.stack import ServerHandle, chosen_backend

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
screen = Console()
progress = Console(stderr=True)

STYLES = {
    Phase.READY: "green",
    Phase.STARTING: "yellow",
    Phase.PAUSED: "yellow",
    Phase.DEAD: "bold red",
    Phase.DOWN: "dim",
}
ServerName = Annotated[str, typer.Argument(help="A server, as `workshop status` lists them.", show_default=False)]


@app.command()
def up() -> None:
    """Bring every server up; harmless when they are."""
    with told():
        backend = chosen_backend()
        bring_up(backend)


@app.command()
def down() -> None:
    """Take the servers down; their data stays."""
    with told():
        backend = chosen_backend()
        was_up = backend.is_up()
        if was_up:
            progress.print("taking the stack down …")
        backend.down()
        progress.print("the stack is down" if was_up else "the stack was not up; nothing of it runs")


@app.command()
def status() -> None:
    """Show what every server is doing. Exit code 1 unless all are ready."""
    with told():
        backend = chosen_backend()
        found = backend.status()
        screen.print(status_table(found))
        if any(server.phase != Phase.READY for server in found) or not backend.is_up():
            raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Check the machine and try each server out. Exit code 1 if anything fails."""
    from workshop.stack.doctor import examine

    with told():
        table = Table("", "check", "seen", "what to try", box=None, pad_edge=False, header_style="bold")
        table.columns[2].overflow = table.columns[3].overflow = "fold"
        failed = 0
        with screen.status("looking …") as status:  # on a terminal, what is being looked at
            for finding in examine(chosen_backend()):
                failed += not finding.ok
                mark = "[green]✓[/]" if finding.ok else "[bold red]✗[/]"
                table.add_row(mark, *map(escape, (finding.what, finding.seen, finding.remedy)))
                status.update(f"looked at {finding.what} …")
        screen.print(table)
        screen.print("[green]all is well[/]" if not failed else f"[bold red]{failed} of the checks failed[/]")
        if failed:
            raise typer.Exit(1)


@app.command()
def reset(
    everything: Annotated[bool, typer.Option("--all", help="Take the stack down and remove all its data.")] = False,
) -> None:
    """Drop every namespace, also those of runs that were killed."""
    with told():
        backend = chosen_backend()
        if everything:
            backend.reset()
            progress.print("the stack and all its data are gone")
        else:
            from workshop.stack.namespace import reset as drop_all

            names = drop_all(backend.urls())
            progress.print(f"dropped: {', '.join(names)}" if names else "there was no namespace to drop")


@app.command()
def logs(name: ServerName, lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000)] = 50) -> None:
    """Show the end of a server's log (`supervisor` has one, too)."""
    with told():
        sys.stdout.write(chosen_backend().logs(name, lines) + "\n")


@app.command()
def kill(name: ServerName) -> None:
    """SIGKILL a server's whole process group."""
    with told():
        ServerHandle(chosen_backend(), name).kill()
        progress.print(f"{name} is dead; `workshop restart {name}` starts it again")


@app.command()
def pause(name: ServerName) -> None:
    """SIGSTOP a server's whole process group: it keeps its connections and answers nothing."""
    with told():
        ServerHandle(chosen_backend(), name).pause()
        progress.print(f"{name} is paused; `workshop resume {name}` lets it go on")


@app.command()
def resume(name: ServerName) -> None:
    """SIGCONT a paused server."""
    with told():
        ServerHandle(chosen_backend(), name).resume()
        progress.print(f"{name} goes on")


@app.command()
def restart(name: ServerName) -> None:
    """Stop a server, if it runs, and start it again; its data stays."""
    with told():
        ServerHandle(chosen_backend(), name).restart()
        progress.print(f"{name} is ready")


@app.command()
def env() -> None:
    """Print where the servers are, for a shell: eval "$(workshop env)"."""
    with told():
        for variable, url in sorted(chosen_backend().urls().items()):
            sys.stdout.write(f"export {variable}={shlex.quote(url)}\n")


@app.command(name="exec", context_settings={"ignore_unknown_options": True})
def exec_(command: Annotated[list[str], typer.Argument(help="The command and its arguments.")]) -> None:
    """Run a command on the stack; take down only what it brought up."""
    with told():
        backend = chosen_backend(ephemeral=True)
        try:
            bring_up(backend, quiet_if_up=True)
            code = run(command, {**os.environ, **backend.urls()})
        finally:
            backend.release()  # takes a few seconds if nobody else uses the stack
        raise typer.Exit(code)


@contextmanager
def told() -> Iterator[None]:
    """Turn what went wrong into one clear line, what to try, and an exit code."""
    try:
        yield
    except StackError as error:
        progress.print(f"[bold red]error:[/] {escape(error.what)}", highlight=False, soft_wrap=True)
        if error.remedy:
            progress.print(f"  [bold]try:[/] {escape(error.remedy)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:  # a disk that is full, a process that does not die
        progress.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        progress.print("  [bold]try:[/] `workshop doctor` checks disk, memory and packages", soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        progress.print("interrupted; nothing was left half-done")
        raise typer.Exit(INTERRUPTED) from None


def bring_up(backend: Backend, *, quiet_if_up: bool = False) -> None:
    """Bring a stack up with a live table of what is starting. Raises StackError, also for one that limps."""
    if backend.is_up():
        backend.up()
        if limping := [server for server in backend.status() if server.phase in CURES]:
            states = ", ".join(f"{server.name} is {server.phase}" for server in limping)
            cures = " && ".join(f"workshop {CURES[server.phase]} {server.name}" for server in limping)
            raise StackError(f"the stack is up, but {states}", f"`{cures}`")
        if not quiet_if_up:
            progress.print("the stack is up; `workshop status` shows it")
        return
    began = time.monotonic()
    rows: dict[str, tuple[Phase, float, str]] = {}

    def drawn() -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, (phase, seconds, detail) in rows.items():
            took = f"{seconds:.1f} s" if phase == Phase.READY else ""
            table.add_row(name, f"[{STYLES[phase]}]{phase}[/]", took, escape(detail.splitlines()[0]) if detail else "")
        return table

    with Live(drawn(), console=progress, auto_refresh=False) as live:

        def on_progress(name: str, phase: Phase, seconds: float, detail: str) -> None:
            rows[name] = (phase, seconds, detail)
            live.update(drawn(), refresh=True)

        try:
            backend.up(on_progress)
        finally:
            live.stop()
            end_line(progress)
    progress.print(f"the stack is up after {time.monotonic() - began:.1f} s")


def end_line(console: Console) -> None:
    """End the last line of a live table, which rich does only on a terminal."""
    if not console.is_terminal:
        console.line()


def status_table(found: list[ServerStatus]) -> Table:
    """The table of `workshop status`."""
    table = Table("server", "state", "version", "pid", "memory", "address", "", box=None, header_style="bold")
    for column in (3, 4):
        table.columns[column].justify = "right"
    for server in found:
        memory = "" if server.resident_bytes is None else f"{server.resident_bytes / 2**20:.0f} MiB"
        state = f"[{STYLES[server.phase]}]{server.phase}[/]"
        pid = "" if server.pid is None else str(server.pid)
        table.add_row(server.name, state, server.version, pid, memory, server.address, escape(server.detail))
    return table


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end and return its exit code; Ctrl-C is the command's to handle."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise StackError(f"cannot run {command[0]}: {error.strerror}") from error

    def forward(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:  # the terminal sends that to the command itself
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    code = process.wait()
    return code if code >= 0 else 128 - code
