"""The command line of the system: one command a process, all settings from the environment (`SHOWCASE_…`)."""

from showcase.cli.documents import documents
from showcase.cli.keys import keys
from showcase.cli.messages import messages, topology
from showcase.cli.processes import app

__all__ = ["app", "main"]

for group, name in ((keys, "keys"), (messages, "messages"), (topology, "topology"), (documents, "documents")):
    app.add_typer(group, name=name)


def main() -> None:
    """`showcase …`, `python -m showcase …`."""
    app()
