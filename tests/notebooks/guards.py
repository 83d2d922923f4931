"""What must hold for a committed notebook, so that running it strictly (nbval) means something.

A notebook without outputs, or whose outputs are all ignored, passes nbval and tests nothing. Each guard is a function
of one notebook that gives its complaints, one a cell, in words for the person who wrote the cell.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from workshop.report import reading
from workshop.report.marks import CHECK

Guard = Callable[[NotebookNode], list[str]]

LONGEST_CELL = 15  # lines
LEAST_WITH_OUTPUT = 1 / 2  # of the code cells
MOST_IGNORED = 1 / 3  # of the cells that show something

IGNORED = {"nbval-ignore-output", "pytest-validate-ignore-output"}
FORBIDDEN = {"nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution"}
PROMISES = re.compile(r"\blab\.(check|agree)\(")
SHOWS = re.compile(r"(print|display|pictures\.\w+|plots\.\w+|lab\.(check|agree|record|source|sql|queues|topic))")
PATHS = re.compile(r"(?<![\w.~:/-])/(home|root|tmp|work|var|Users|private)(/|\b(?!-))")
ADDRESSES = re.compile(r"(127\.0\.0\.1|localhost|0\.0\.0\.0|\[::1\]):\d+")
TIMES = re.compile(r"\b20(2[4-9]|[3-9]\d)-\d\d-\d\d[T ]\d\d:\d\d")  # the shop's own times are of 2017
NO_ALT = re.compile(r"\s*(<.*>)?\s*", re.DOTALL)
FROM_THE_NETWORK = re.compile(r"!\[[^]]*]\(\s*https?:|<img[^>]+src=[\"']?https?:", re.IGNORECASE)


def ran_in_order(notebook: NotebookNode) -> list[str]:
    """It ran once, top to bottom, in a fresh kernel."""
    complaints = []
    for expected, (number, cell) in enumerate(code_cells(notebook), start=1):
        counts = {cell.execution_count, *(o.execution_count for o in cell.outputs if "execution_count" in o)}
        if counts != {expected}:
            seen = " and ".join(sorted(map(str, counts)))
            complaints.append(f"cell {number} has the count {seen}, not {expected}: restart the kernel and run all")
    return complaints


def raised_nothing(notebook: NotebookNode) -> list[str]:
    """No cell failed, and none wrote to stderr."""
    return [
        f"cell {number} has {'an error' if output.output_type == 'error' else 'text on stderr'} in its output"
        for number, cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def has_outputs(notebook: NotebookNode) -> list[str]:
    """What shows something has its output stored, and enough cells show something."""
    cells = list(code_cells(notebook))
    complaints = [
        f"cell {number} shows something, but its output is not stored"
        for number, cell in cells
        if not cell.outputs and shows(cell)
    ]
    with_output = sum(bool(cell.outputs) for _, cell in cells)
    if with_output < LEAST_WITH_OUTPUT * len(cells):
        complaints.append(f"only {with_output} of {len(cells)} code cells have an output")
    return complaints


def skips_nothing(notebook: NotebookNode) -> list[str]:
    """No cell is left out, and none may fail."""
    return [
        f"cell {number} is marked {mark}: every cell runs, and none raises"
        for number, cell in code_cells(notebook)
        for mark in sorted(marks(cell) & FORBIDDEN)
    ]


def ignores_little(notebook: NotebookNode) -> list[str]:
    """Most of what is shown is compared."""
    showing = [cell for _, cell in code_cells(notebook) if cell.outputs and not only_shows_source(cell)]
    ignored = [cell for cell in showing if is_ignored(cell)]
    if len(ignored) <= MOST_IGNORED * len(showing):
        return []
    return [f"{len(ignored)} of {len(showing)} cells with output are not compared: at most one in three may be"]


def checks_what_it_ignores(notebook: NotebookNode) -> list[str]:
    """After an output that is not compared, before the next heading, a compared cell checks what is the same."""
    complaints = []
    waiting: list[int] = []
    for number, cell in enumerate(notebook.cells, start=1):
        if reading.headings(cell):
            complaints += waiting
            waiting = []
        elif cell.cell_type == "code" and is_ignored(cell):
            waiting += [] if only_shows_source(cell) else [number]
        elif cell.cell_type == "code" and PROMISES.search(cell.source) and has_check(cell):
            waiting = []
    return [
        f"cell {number} is not compared, and no `lab.check` follows it before the next heading"
        for number in complaints + waiting
    ]


def takes_a_profile(notebook: NotebookNode) -> list[str]:
    """One cell is tagged `parameters`; it says `profile = "quick"`, and papermill may say otherwise."""
    cells = [cell for _, cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    complaints = []
    if len(cells) != 1:
        complaints.append(f"{len(cells)} cells are tagged `parameters`: it takes one")
    if not any(re.search(r"""^profile\s*(:\s*\w+\s*)?=\s*["']quick["']""", c.source, re.MULTILINE) for c in cells):
        complaints.append('no cell tagged `parameters` says `profile = "quick"`')
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        complaints.append("it is papermill's output: commit the lesson, run in JupyterLab or by nbconvert")
    return complaints


def is_short(notebook: NotebookNode) -> list[str]:
    """A cell does one thing; what is longer belongs in the packages."""
    complaints = []
    for number, cell in code_cells(notebook):
        lines = len(cell.source.strip().splitlines())
        if lines > LONGEST_CELL:
            complaints.append(f"cell {number} has {lines} lines: {LONGEST_CELL} at most")
        if not lines:
            complaints.append(f"cell {number} is empty")
        if any(isinstance(node, ast.ClassDef) for node in ast.walk(tree(cell))):
            complaints.append(f"cell {number} defines a class: it belongs in a package")
    return complaints


def keeps_its_promises(notebook: NotebookNode) -> list[str]:
    """It checks something, and what it checked held."""
    checks = reading.checks(notebook)
    if not checks:
        return ["no check is in its outputs: a lesson promises something, with `lab.check`"]
    return [f"the check “{check.what}” does not hold" for check in checks if not check.holds]


def names_no_machine(notebook: NotebookNode) -> list[str]:
    """Nothing in it is of the machine it ran on: no folder, no port and, where outputs are compared, no time."""
    complaints = []
    for number, cell in enumerate(notebook.cells, start=1):
        out = "\n".join(texts(cell))
        for pattern, where, what in (
            (PATHS, f"{cell.source}\n{out}", "names a folder of this machine"),
            (ADDRESSES, f"{cell.source}\n{out}", "names a port"),
            (TIMES, "" if is_ignored(cell) else out, "shows a time of its run"),
        ):
            if found := pattern.search(where):
                complaints.append(f"cell {number} {what}: {where[found.start() : found.end() + 20].splitlines()[0]}")
    return complaints


def describes_its_pictures(notebook: NotebookNode) -> list[str]:
    """Every picture says in words what it shows, and none is loaded from the network."""
    complaints = [
        f"cell {number} shows a picture without a text that says what is on it"
        for number, cell in code_cells(notebook)
        for output in cell.outputs
        if any(kind.startswith("image/") for kind in output.get("data", {}))
        and NO_ALT.fullmatch(output.data.get("text/plain", ""))
    ]
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown" and re.search(r"!\[\s*]\(|<img(?![^>]*\balt=)", cell.source):
            complaints.append(f"cell {number} shows a picture without a text that says what is on it")
        if cell.cell_type == "markdown" and FROM_THE_NETWORK.search(cell.source):
            complaints.append(f"cell {number} loads a picture from the network: a lesson works offline")
    return complaints


GUARDS: tuple[Guard, ...] = (
    ran_in_order,
    raised_nothing,
    has_outputs,
    skips_nothing,
    ignores_little,
    checks_what_it_ignores,
    takes_a_profile,
    is_short,
    keeps_its_promises,
    names_no_machine,
    describes_its_pictures,
)


# -- what a cell is


def code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """The code cells, each with its place among all cells, counted from 1."""
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            yield number, cell


def marks(cell: NotebookNode) -> set[str]:
    """How nbval is told to treat a cell: its tags, and comments of the same names in capitals."""
    tags = {tag.lower().replace("_", "-") for tag in cell.metadata.get("tags", [])}
    comments = re.findall(r"^\s*#+\s*(\w+)\s*$", cell.source, re.MULTILINE)
    return tags | {comment.lower().replace("_", "-") for comment in comments}


def is_ignored(cell: NotebookNode) -> bool:
    """Whether the output of a cell is not compared."""
    return bool(marks(cell) & IGNORED)


def has_check(cell: NotebookNode) -> bool:
    """Whether a check is in the output of a cell."""
    return any(CHECK in output.get("data", {}) for output in cell.outputs)


def shows(cell: NotebookNode) -> bool:
    """Whether a cell certainly shows something: it calls what shows, or ends with a value that is no call."""
    body = tree(cell).body
    if any(SHOWS.fullmatch(called) for called in calls(body)):
        return True
    last = body[-1] if body else None
    return (
        isinstance(last, ast.Expr)
        and not isinstance(last.value, ast.Call | ast.Await | ast.Constant)
        and not cell.source.rstrip().endswith(";")
    )


def calls(body: list[ast.stmt]) -> Iterator[str]:
    """What is called by the statements that surely run, as it is written: `print`, `lab.check`."""
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Call(func=func) | ast.Await(value=ast.Call(func=func))):
                yield ast.unparse(func)
            case ast.With(body=inner) | ast.AsyncWith(body=inner) | ast.Try(body=inner):
                yield from calls(inner)


def only_shows_source(cell: NotebookNode) -> bool:
    """Whether a cell does nothing but show source code, which changes whenever the code does."""
    rest = [node for node in tree(cell).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    return bool(rest) and set(calls(rest)) == {"lab.source"} and all(isinstance(node, ast.Expr) for node in rest)


def tree(cell: NotebookNode) -> ast.Module:
    """The syntax of a cell, magics included. Raises SyntaxError."""
    source = TransformerManager().transform_cell(cell.source)
    module: ast.Module = compile(source, "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return module


def texts(cell: NotebookNode) -> Iterator[str]:
    """All text in the outputs of a cell, pictures' pixels left out."""
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield output.get("evalue", "")
        for kind, data in output.get("data", {}).items():
            if kind not in ("image/png", "image/jpeg"):
                yield data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
