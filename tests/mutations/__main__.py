"""`python -m tests.mutations [LIST …]`: remove each rule in a copy of the sources, and name the test that noticed.

Lists whose tests need servers are run as those tests are: `workshop exec -- python -m tests.mutations sessions`.
The sources themselves are never touched.
"""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests import mutations
from tests.mutations import Mutation

ROOT = Path(__file__).parents[2]
COPIED = ("showcase", "workshop", "tests", "pyproject.toml")
PLUGINS = ("anyio.pytest_plugin", "pytest_timeout")
"""All that the tests need. Others that are installed take three times as long to load as all else together."""
WITHIN_S = 120.0
FAILED = 1
"""pytest's exit code for tests that ran and failed; any other means that none ran, which proves nothing."""


def main(names: Sequence[str]) -> int:
    """Try the lists of these names; all, if there are none. The exit code: 0 if every rule is protected."""
    known = [module.name for module in pkgutil.iter_modules(mutations.__path__) if module.name != "__main__"]
    if unknown := set(names) - set(known):
        print(f"no such list: {', '.join(sorted(unknown))}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [mutation for name in names or known for mutation in mutations_of(name)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_sources(copy)
        code, output = run(copy, sorted({test for mutation in chosen for test in mutation.tests}))
        if code != 0:
            print(output, "\nThese tests do not pass as things are: nothing can be learnt from them.", file=sys.stderr)
            return 2
        widest = max(len(mutation.rule) for mutation in chosen)
        survived = 0
        for mutation in chosen:
            began = time.monotonic()
            noticed = try_without(copy, mutation)
            survived += noticed is None
            told = noticed or f"NOBODY NOTICED ({', '.join(mutation.tests)})"
            print(f"{mutation.rule:{widest}} | {mutation.file} | {told} | {time.monotonic() - began:.1f} s", flush=True)
    print(f"\n{len(chosen)} rules removed, {len(chosen) - survived} noticed, {survived} not")
    return 1 if survived else 0


def mutations_of(name: str) -> Sequence[Mutation]:
    """The list `MUTATIONS` of one module beside this one."""
    found: Sequence[Mutation] = importlib.import_module(f"{mutations.__name__}.{name}").MUTATIONS
    return found


def copy_sources(folder: Path) -> None:
    """Copy what the tests run, without what Python has compiled."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)


def try_without(copy: Path, mutation: Mutation) -> str | None:
    """The test that fails without a rule; None if none does. The copy is whole again at the end.

    Raises ValueError when the text to replace is not there exactly once.
    """
    source = copy / mutation.file
    original, times = source.read_text(), source.stat()
    if original.count(mutation.old) != 1:
        raise ValueError(f"{mutation.rule}: the text to replace must be in {mutation.file} exactly once")
    try:
        source.write_text(original.replace(mutation.old, mutation.new))
        # Python tells by the time, in seconds, whether what it has compiled is of this source.
        os.utime(source, (times.st_atime, times.st_mtime + 10))
        code, output = run(copy, mutation.tests, PYTHONDONTWRITEBYTECODE="1")
    finally:
        source.write_text(original)
        os.utime(source, (times.st_atime, times.st_mtime))
    found = re.search(r"^FAILED (.+?)(?: - .*)?$", output, re.MULTILINE)
    return found[1] if code == FAILED and found else None


def run(copy: Path, tests: Sequence[str], **variables: str) -> tuple[int, str]:
    """Run tests in the copy: pytest's exit code, and what it printed."""
    plugins = [option for name in ("no:cacheprovider", *PLUGINS) for option in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *plugins, *tests]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {
        **inherited,
        "PYTHONPATH": str(copy),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "SHOWCASE_STACK": "external",  # the servers of `workshop exec`, not those of another checkout: the copy
        "COLUMNS": "400",
        **variables,
    }
    try:
        ended = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return -1, f"did not end within {WITHIN_S:.0f} s"
    return ended.returncode, ended.stdout + ended.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
