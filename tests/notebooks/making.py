"""Small notebooks for tests, made cell by cell. nbformat's functions have no types; these have."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nbformat import NotebookNode, v4, write

PARAMETERS = 'profile = "quick"'


def code(source: str, *outputs: NotebookNode, tags: Sequence[str] = (), count: int | None = None) -> NotebookNode:
    """A code cell; one without a count has not run."""
    cell: NotebookNode = v4.new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)} if tags else {}
    )
    return cell


def text(markdown: str) -> NotebookNode:
    """A Markdown cell."""
    cell: NotebookNode = v4.new_markdown_cell(markdown)
    return cell


def shown(data: Mapping[str, object]) -> NotebookNode:
    """What `display` leaves in a notebook: MIME type → data."""
    output: NotebookNode = v4.new_output("display_data", data=dict(data))
    return output


def printed(said: str, stream: str = "stdout") -> NotebookNode:
    """What `print` leaves in a notebook."""
    output: NotebookNode = v4.new_output("stream", name=stream, text=said)
    return output


def raised(name: str, value: str) -> NotebookNode:
    """What an exception leaves in a notebook."""
    output: NotebookNode = v4.new_output("error", ename=name, evalue=value, traceback=[])
    return output


def notebook(*cells: NotebookNode, kernel: str = "python3") -> NotebookNode:
    """A notebook of these cells."""
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    made: NotebookNode = v4.new_notebook(cells=list(cells), metadata={"kernelspec": spec})
    return made


def save(made: NotebookNode, path: Path) -> None:
    """Write a notebook to a file."""
    write(made, path)
