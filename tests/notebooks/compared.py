"""A plugin for the pytest that runs nbval: measured numbers and the servers' versions are not compared.

nbval's sanitizer changes text only, and these two marks are JSON; their text beside them is sanitized.
"""

import pytest

from workshop.report.marks import RECORD, VERSIONS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell nbval, once a notebook, which MIME types to leave out."""
    for notebook in {item.parent for item in items}:
        if isinstance(left_out := getattr(notebook, "skip_compare", None), tuple):
            vars(notebook)["skip_compare"] = (*left_out, RECORD, VERSIONS)
