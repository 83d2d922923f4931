"""The command line of the system: one command a process, all settings from the environment (`SHOWCASE_…`)."""

from showcase.cli.audit import audit
from showcase.cli.documents import documents
from showcase.cli.keys import keys
from showcase.cli.messages import messages, topology
from showcase.cli.processes import app

__all__ = ["app", "main"]

GROUPS = {"keys": keys, "messages": messages, "topology": topology, "documents": documents, "audit": audit}

for name, group in GROUPS.items():
    app.add_typer(group, name=name)


def main() -> None:
    """`showcase …`, `python -m showcase …`."""
    app()
