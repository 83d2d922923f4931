"""The import contracts of pyproject.toml hold, and each notices what it forbids."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

VIOLATIONS: Mapping[str, Mapping[str, str]] = {
    "showcase knows nothing of what runs it": {"platform/errors.py": "import workshop"},
    "the system's layers": {"auth/domain.py": "import showcase.messaging"},
    "a slice's rooms": {"auth/domain.py": "import showcase.auth.application", "auth/application.py": ""},
    "no service knows another": {
        "services/payment.py": "import showcase.services.stock",
        "services/stock.py": "",
    },
    "rules and use cases know no framework": {"caching/application.py": "import redis"},
    "only infrastructure and wiring speak to servers": {"documents/api.py": "import pymongo"},
}


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a checkout, in a process that imports that one and not ours."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_contract_is_kept() -> None:
    result = lint_imports(CHECKOUT)

    assert result.returncode == 0, result.stdout
    assert "6 kept, 0 broken" in result.stdout


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_contract_notices_what_it_forbids(contract: str, tmp_path: Path) -> None:
    for part in ("showcase", "workshop", "benchmarks"):
        shutil.copytree(CHECKOUT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    for name, source in VIOLATIONS[contract].items():
        path = tmp_path / "showcase" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source + "\n")

    result = lint_imports(tmp_path)

    broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert result.returncode != 0
    assert len(broken) == 1, result.stdout
    assert contract in broken[0]
