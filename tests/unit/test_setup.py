"""`workshop/setup.sh` and the Makefile, on machines that are made up.

A test runs the real script in a small checkout of its own. PATH holds what a minimal Debian has and
stand-ins for uv, python3, apt-get and sudo, which write down how they were called and leave behind what the
real ones would. CI runs the script for real, on a real machine.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MINIMAL_DEBIAN = """
cat chmod cut dirname env flock grep head ln mkdir mktemp mv rm sed sha256sum sh sort tee touch true
"""
COMMANDS = {
    *("run", "test", "up", "down", "status", "doctor", "reset"),
    *("lab", "lint", "format", "unit", "clean", "help"),
}
NEWEST = "999.0.0"
WITHIN_S = 10

WAIT = 'read -r _ <"$MACHINE/gate"'

UV = """
case $1 in
    --version) echo "uv VERSION (a commit and a date)" ;;
    sync)
        echo "uv was told: ${PYTHONPATH-}${VIRTUAL_ENV-}${PYTHONDONTWRITEBYTECODE-}" \
            "$UV_PROJECT_ENVIRONMENT $UV_PYTHON_PREFERENCE" >>"$CALLS"
        mkdir -p .venv/bin
        ln -sf "$MACHINE/venv-python" .venv/bin/python
        ;;
esac
"""
VENV_PYTHON = """
case $* in
    --version) echo Python 3.11.2 ;;
    "-m workshop.stack.local.jars")
        [ -e "$HOME/jars" ] || { command -v mvn >/dev/null && touch "$HOME/jars"; } ;;
esac
"""
DEBIAN_PYTHON = """
case $* in
    "-c import ensurepip") [ -e "$MACHINE/ensurepip" ] ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        ln -s "$MACHINE/pip" "$3/bin/python" ;;
esac
"""
PIP = """
# Called as …/bin/python of a throw-away environment: pip puts uv beside it, unless it is told another place.
[ "${PIP_USER-no}${PIP_TARGET-}${PIP_PREFIX-}" = no ] || exit 4
cat "$MACHINE/new-uv" >"${0%/*}/uv"
chmod +x "${0%/*}/uv"
"""
APT_GET = """
case $* in
    *install*)
        if [ -x "$MACHINE/sbin/policy-rc.d" ]; then echo 'services held' >>"$CALLS"; fi
        for package in "$@"; do
            case $package in
                python3-venv) touch "$MACHINE/ensurepip" ;;
                maven) command=mvn ;;
                rabbitmq-server | redis-server | chromium) command=$package ;;
                *) command= ;;
            esac
            if [ -n "$command" ]; then
                echo '#!/bin/sh' >"$MACHINE/bin/$command"
                chmod +x "$MACHINE/bin/$command"
            fi
        done ;;
esac
"""
SUDO = """
shift
exec "$@"
"""


class Machine:
    """A machine with a checkout on it.

    Args:
        folder: an empty folder, in which all of it lives.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.home = folder / "home"
        self.calls_file = folder / "calls"
        self.policy = folder / "sbin" / "policy-rc.d"
        for name in ("bin", "sbin", "home", "checkout/workshop"):
            (folder / name).mkdir(parents=True)
        self.calls_file.touch()
        for tool in MINIMAL_DEBIAN.split():
            found = shutil.which(tool)
            assert found, f"these tests need {tool}"
            (folder / "bin" / tool).symlink_to(found)
        script = (REPOSITORY / "workshop" / "setup.sh").read_text()
        here = script.replace("/usr/local/sbin", f"{folder}/sbin").replace("/usr/sbin", f"{folder}/sbin")
        assert f"{folder}/sbin/policy-rc.d" in here
        assert "/usr/" not in here, "these tests must not touch the machine they run on"
        self.script = self.checkout / "workshop" / "setup.sh"
        self.script.write_text(here)
        self.script.chmod(0o755)
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        (self.checkout / "uv.lock").write_text("version = 1\n")
        self.pinned_uv = script.partition("UV_VERSION=")[2].split()[0]
        self.stand_in("id", "echo 0")
        self.stand_in("ldconfig")

    # -- what is installed

    def stand_in(self, command: str, body: str = "", *, folder: str = "bin") -> None:
        """Install a command that writes down its call and then does what the body says."""
        path = self.folder / folder / command
        path.unlink(missing_ok=True)  # may be a link to the real one
        path.write_text(f'#!/bin/sh\necho "{command} $*" >>"$CALLS"\n{body}')
        path.chmod(0o755)

    def with_uv(self, version: str = NEWEST) -> "Machine":
        self.stand_in("uv", self.uv(version))
        return self

    def uv(self, version: str = NEWEST) -> str:
        """The body of a uv whose `sync` makes a .venv with a python in it."""
        self.stand_in("venv-python", VENV_PYTHON, folder=".")
        return UV.replace("VERSION", version)

    def with_debian_python(self) -> "Machine":
        """Python without ensurepip, as Debian has it; `pip` delivers the pinned uv."""
        self.stand_in("python3", DEBIAN_PYTHON)
        self.stand_in("pip", PIP, folder=".")
        self.stand_in("new-uv", self.uv(self.pinned_uv), folder=".")
        return self

    def with_servers(self) -> "Machine":
        self.stand_in("ldconfig", "echo '  libcurl.so.4 (libc6,x86-64) => /lib/libcurl.so.4'")
        for command in ("rabbitmq-server", "redis-server", "mvn", "chromium"):
            self.stand_in(command)
        return self

    def with_apt(self) -> "Machine":
        self.stand_in("apt-get", APT_GET)
        return self

    def as_plain_user(self) -> "Machine":
        self.stand_in("id", "echo 1000")
        return self

    # -- what happens on it

    @contextmanager
    def started(self, mode: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The script at work, in a process group of its own that does not outlive the block."""
        with subprocess.Popen(
            [self.script, mode],
            env={
                "PATH": str(self.folder / "bin"),
                "HOME": str(self.home),
                "MACHINE": str(self.folder),
                "CALLS": str(self.calls_file),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def setup(self, mode: str = "servers", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script to its end."""
        with self.started(mode, **environment) as process:
            stdout, stderr = process.communicate(timeout=WITHIN_S)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    @contextmanager
    def gate(self) -> Iterator[Callable[[], object]]:
        """A place where a stand-in waits (`WAIT`), and the function that lets every waiter through."""
        os.mkfifo(self.folder / "gate")
        end = os.open(self.folder / "gate", os.O_RDWR)
        try:
            yield lambda: os.write(end, b"go\n" * 9)
        finally:
            os.close(end)

    def calls(self, command: str = "") -> list[str]:
        """How the stand-ins were called so far, in order."""
        return [call for call in self.calls_file.read_text().splitlines() if call.startswith(command)]

    def forget_calls(self) -> None:
        self.calls_file.write_text("")

    @property
    def stamp(self) -> Path:
        return self.checkout / ".venv" / ".showcase-stamp"

    @property
    def cached(self) -> list[str]:
        return sorted(path.name for path in (self.home / ".cache" / "showcase").glob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


# --- nothing installed, and no way to


def without_apt(machine: Machine) -> None:
    """Some other distribution."""


def without_root(machine: Machine) -> None:
    machine.with_apt().as_plain_user()


def with_a_sudo_that_asks_for_a_password(machine: Machine) -> None:
    machine.with_apt().as_plain_user().stand_in("sudo", "exit 1")


@pytest.mark.parametrize("limited", [without_apt, without_root, with_a_sudo_that_asks_for_a_password])
def test_one_message_names_all_that_is_missing_and_the_three_ways_on(
    machine: Machine, limited: Callable[[Machine], None]
) -> None:
    limited(machine.with_debian_python())

    result = machine.setup("tests")

    assert result.returncode == 1
    assert result.stdout == ""
    assert "not found here: python3-venv, rabbitmq-server, redis-server, libcurl4, chromium, mvn." in result.stderr
    packages = "python3-venv rabbitmq-server redis-server libcurl4 chromium maven"
    assert f"sudo apt-get install --no-install-recommends {packages}\n" in result.stderr
    assert "conda env create -f environment.yml" in result.stderr
    assert "SHOWCASE_STACK=compose make run" in result.stderr
    assert result.stderr.count("setup:") == 1
    assert machine.calls("apt-get") == []


def test_only_what_is_missing_is_named(machine: Machine) -> None:
    machine.with_uv().with_servers()
    (machine.folder / "bin" / "redis-server").unlink()

    assert "not found here: redis-server.\n" in machine.setup("tests").stderr


@pytest.mark.parametrize("browser", ["chromium-browser", "google-chrome"])
def test_another_build_of_chromium_does_for_the_tests(machine: Machine, browser: str) -> None:
    machine.with_uv().with_servers()
    (machine.folder / "bin" / "chromium").rename(machine.folder / "bin" / browser)

    assert machine.setup("tests").returncode == 0


def test_the_library_that_the_wheels_mongod_links_is_installed(machine: Machine) -> None:
    machine.with_uv().with_servers().with_apt().stand_in("ldconfig", "echo '  libcurl-gnutls.so.4 => /lib/…'")

    machine.setup()

    assert machine.calls("apt-get")[-1].endswith("--no-install-recommends libcurl4")


def test_a_mongod_on_path_needs_no_library(machine: Machine) -> None:
    machine.with_uv().with_servers().stand_in("ldconfig")
    machine.stand_in("mongod")

    assert machine.setup().returncode == 0


def test_a_server_outside_an_ordinary_users_path_is_found(machine: Machine) -> None:
    machine.with_uv().with_servers()
    machine.folder.joinpath("bin", "rabbitmq-server").rename(machine.folder / "sbin" / "rabbitmq-server")

    assert machine.setup().returncode == 0


def test_venv_needs_no_servers_and_no_root(machine: Machine) -> None:
    result = machine.with_uv().as_plain_user().setup("venv")

    assert result.returncode == 0, result.stderr
    assert machine.stamp.exists()


@pytest.mark.parametrize("stack", ["compose", "external"])
def test_servers_of_somebody_else_need_no_packages_and_no_jars(machine: Machine, stack: str) -> None:
    result = machine.with_uv().as_plain_user().setup("tests", SHOWCASE_STACK=stack)

    assert result.returncode == 0, result.stderr
    assert machine.calls("venv-python -m") == []


def test_an_unknown_mode_is_refused(machine: Machine) -> None:
    result = machine.with_uv().setup("everything")

    assert result.returncode == 1
    assert "venv, servers or tests" in result.stderr


# --- .venv


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.with_uv().with_servers()
    assert machine.setup("tests").returncode == 0
    before = machine.stamp.stat().st_mtime_ns
    machine.forget_calls()

    result = machine.setup("tests")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert machine.stamp.stat().st_mtime_ns == before
    assert machine.calls("uv") == []
    assert machine.calls("apt-get") == []


def test_packages_are_exactly_those_of_the_lock(machine: Machine) -> None:
    machine.with_uv().setup("venv")

    assert "uv sync --quiet --locked --all-groups" in machine.calls()


@pytest.mark.parametrize("file", ["pyproject.toml", "uv.lock"])
def test_a_changed_file_is_noticed_and_the_venv_kept(machine: Machine, file: str) -> None:
    machine.with_uv().setup("venv")
    (machine.checkout / ".venv" / "kept").touch()
    with (machine.checkout / file).open("a") as content:
        content.write("# changed\n")
    machine.forget_calls()

    assert machine.setup("venv").returncode == 0

    assert len(machine.calls("uv sync")) == 1
    assert (machine.checkout / ".venv" / "kept").exists()
    machine.forget_calls()
    machine.setup("venv")
    assert machine.calls("uv sync") == []


def test_another_python_behind_the_venv_is_noticed(machine: Machine) -> None:
    machine.with_uv().setup("venv")
    machine.stand_in("venv-python", VENV_PYTHON.replace("3.11.2", "3.13.5"), folder=".")
    machine.forget_calls()

    machine.setup("venv")

    assert len(machine.calls("uv sync")) == 1


def test_another_python_asked_for_is_noticed(machine: Machine) -> None:
    machine.with_uv().setup("venv")
    machine.forget_calls()

    machine.setup("venv", UV_PYTHON="3.14")

    assert len(machine.calls("uv sync")) == 1


def test_a_venv_that_was_never_finished_is_made_anew(machine: Machine) -> None:
    machine.stand_in("uv", machine.uv() + "[ $1 = --version ] || { touch .venv/half; exit 7; }")
    assert machine.setup("venv").returncode == 7
    assert not machine.stamp.exists()
    machine.with_uv()

    assert machine.setup("venv").returncode == 0

    assert not (machine.checkout / ".venv" / "half").exists()
    assert machine.stamp.exists()


def test_a_checkout_that_was_moved_makes_its_venv_anew(machine: Machine) -> None:
    machine.with_uv().setup("venv")
    (machine.checkout / ".venv" / "with-the-old-path").touch()
    moved = machine.checkout.rename(machine.folder / "moved")
    machine.checkout = moved
    machine.script = moved / "workshop" / "setup.sh"

    assert machine.setup("venv").returncode == 0

    assert not (moved / ".venv" / "with-the-old-path").exists()


def test_an_update_that_was_interrupted_makes_the_venv_anew(machine: Machine) -> None:
    machine.with_uv().setup("venv")
    (machine.checkout / "uv.lock").write_text("version = 2\n")
    machine.stand_in("uv", machine.uv() + "[ $1 = --version ] || { touch .venv/half; exit 7; }")
    assert machine.setup("venv").returncode == 7

    assert machine.with_uv().setup("venv").returncode == 0

    assert not (machine.checkout / ".venv" / "half").exists()


def test_settings_of_another_project_do_not_reach_uv(machine: Machine) -> None:
    machine.with_uv().setup(
        "venv",
        PYTHONPATH="/other",
        VIRTUAL_ENV="/other",
        PYTHONDONTWRITEBYTECODE="1",
        UV_PROJECT_ENVIRONMENT="/other",
    )

    assert machine.calls("uv was told:") == ["uv was told:  .venv system"]


def test_two_at_once_do_the_work_once(machine: Machine) -> None:
    machine.stand_in("uv", machine.uv() + f"[ $1 = --version ] || {WAIT}")
    flock = shutil.which("flock")
    machine.stand_in("flock", f'exec {flock} "$@"')

    with machine.gate() as let_through, machine.started("venv") as first:
        wait_until(lambda: len(machine.calls("uv sync")) == 1)
        with machine.started("venv") as second:
            wait_until(lambda: "flock 9" in machine.calls() or len(machine.calls("uv sync")) == 2)
            let_through()
            assert [first.wait(WITHIN_S), second.wait(WITHIN_S)] == [0, 0]

    assert len(machine.calls("uv sync")) == 1


# --- uv itself


def test_uv_is_fetched_by_pip_once_a_user(machine: Machine) -> None:
    machine.with_debian_python()
    (machine.folder / "ensurepip").touch()

    assert machine.setup("venv").returncode == 0

    assert [call.split()[-2:] for call in machine.calls("pip")] == [["install", f"uv=={machine.pinned_uv}"]]
    assert machine.cached == [f"uv-{machine.pinned_uv}"]
    shutil.rmtree(machine.checkout / ".venv")
    machine.forget_calls()
    assert machine.setup("venv").returncode == 0
    assert machine.calls("pip") == []


@pytest.mark.parametrize("setting", ["PIP_USER", "PIP_TARGET", "PIP_PREFIX"])
def test_settings_of_pip_do_not_lead_uv_elsewhere(machine: Machine, setting: str) -> None:
    machine.with_debian_python()
    (machine.folder / "ensurepip").touch()

    assert machine.setup("venv", **{setting: "yes"}).returncode == 0


def test_a_uv_on_path_that_is_too_old_is_passed_over(machine: Machine) -> None:
    machine.with_debian_python().with_uv("0.1.0")
    (machine.folder / "ensurepip").touch()

    assert machine.setup("venv").returncode == 0

    assert machine.calls("uv sync") == []
    assert machine.calls("new-uv sync") == ["new-uv sync --quiet --locked --all-groups"]


def test_a_fetch_of_uv_that_fails_leaves_nothing_behind(machine: Machine) -> None:
    machine.with_debian_python().stand_in("pip", PIP + "exit 5", folder=".")
    (machine.folder / "ensurepip").touch()

    assert machine.setup("venv").returncode == 5

    assert machine.cached == []
    machine.with_debian_python()
    assert machine.setup("venv").returncode == 0


def test_python3_venv_comes_from_debian_where_python_has_no_ensurepip(machine: Machine) -> None:
    machine.with_debian_python().with_apt()

    result = machine.setup("venv")

    assert result.returncode == 0, result.stderr
    assert machine.calls("apt-get")[-1].endswith("--no-install-recommends python3-venv")


# --- Debian packages


@pytest.fixture
def bare(machine: Machine) -> Machine:
    """A Debian as it comes from its installer, used by root."""
    return machine.with_debian_python().with_apt()


def test_everything_missing_is_installed_in_one_go(bare: Machine) -> None:
    result = bare.setup("tests")

    assert result.returncode == 0, result.stderr
    update, install = bare.calls("apt-get")
    assert update == "apt-get -qq update"
    assert "DPkg::Lock::Timeout" in install, "another apt-get at work is waited for"
    assert install.endswith(
        "install --no-install-recommends python3-venv rabbitmq-server redis-server libcurl4 chromium maven"
    )


def test_no_service_is_started_by_its_package(bare: Machine) -> None:
    bare.setup()

    assert bare.calls("services held")
    assert not bare.policy.exists()


def test_a_policy_of_the_machines_own_is_left_alone(bare: Machine) -> None:
    bare.policy.write_text("#!/bin/sh\nexit 0\n")

    bare.setup()

    assert bare.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_policy_left_by_a_killed_setup_is_removed(bare: Machine) -> None:
    bare.stand_in("apt-get", 'case $* in *install*) kill -KILL "$PPID" ;; esac')
    assert bare.setup().returncode == -signal.SIGKILL
    assert bare.policy.exists()

    assert bare.with_apt().setup().returncode == 0

    assert not bare.policy.exists()


def test_an_installation_that_fails_leaves_no_policy_behind(bare: Machine) -> None:
    bare.stand_in("apt-get", "case $* in *install*) exit 100 ;; esac")

    result = bare.setup()

    assert result.returncode == 1
    assert "apt-get could not install: python3-venv rabbitmq-server redis-server libcurl4 maven" in result.stderr
    assert not bare.policy.exists()


def test_an_installation_that_is_interrupted_leaves_no_policy_behind(bare: Machine) -> None:
    bare.stand_in("apt-get", f"case $* in *install*) {WAIT} ;; esac")

    with bare.gate(), bare.started("servers") as process:
        wait_until(lambda: len(bare.calls("apt-get")) == 2)
        assert bare.policy.exists()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(WITHIN_S) == 128 + signal.SIGTERM

    assert not bare.policy.exists()


def test_services_that_were_just_installed_do_not_start_at_the_next_boot(bare: Machine) -> None:
    bare.stand_in("redis-server")  # was there before, so it may be somebody's
    bare.stand_in("systemctl")

    bare.setup()

    disabled = {call.split()[-1] for call in bare.calls("systemctl --quiet disable")}
    assert disabled == {"rabbitmq-server", "epmd.socket", "epmd.service"}


def test_package_lists_that_cannot_be_updated_are_used_as_they_are(bare: Machine) -> None:
    bare.stand_in("apt-get", "case $* in *update*) exit 100 ;; esac\n" + APT_GET)

    assert bare.setup().returncode == 0


def test_sudo_without_a_password_does_for_root(bare: Machine) -> None:
    bare.as_plain_user().stand_in("sudo", SUDO)

    result = bare.setup()

    assert result.returncode == 0, result.stderr
    assert bare.calls("services held")
    assert not bare.policy.exists()
    assert len(bare.calls("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get")) == 1


# --- Maven


def test_maven_is_not_needed_once_the_jars_are_cached(machine: Machine) -> None:
    machine.with_uv().with_servers().as_plain_user()
    machine.setup()
    (machine.folder / "bin" / "mvn").unlink()

    assert machine.setup().returncode == 0


def test_maven_is_installed_where_only_the_jars_are_missing(machine: Machine) -> None:
    machine.with_uv().with_servers().with_apt()
    (machine.folder / "bin" / "mvn").unlink()

    assert machine.setup().returncode == 0

    assert machine.calls("apt-get")[-1].endswith("--no-install-recommends maven")
    assert (machine.home / "jars").exists()


def test_jars_that_cannot_be_fetched_fail_the_setup(machine: Machine) -> None:
    machine.with_uv().with_servers()
    machine.stand_in("venv-python", "case $* in -m*) echo the reason >&2; exit 3 ;; esac", folder=".")

    result = machine.setup()

    assert result.returncode == 3
    assert "the reason" in result.stderr


# --- the Makefile


def make(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_make_alone_lists_the_commands() -> None:
    listed = {line.split()[1] for line in make().splitlines()}

    assert listed >= COMMANDS


@pytest.mark.parametrize("target", ["down", "status", "doctor", "reset", "lint", "format", "unit"])
def test_what_needs_no_servers_installs_none(target: str) -> None:
    planned = make("--dry-run", target)

    assert "workshop/setup.sh venv" in planned
    assert "setup.sh servers" not in planned
    assert "setup.sh tests" not in planned


def test_clean_leaves_the_state_folder_alone() -> None:
    commands = [command for line in make("--dry-run", "clean").splitlines() for command in line.split("&&")]
    removed = {word for command in commands if "rm -rf" in command for word in command.split()}

    assert {".venv", "build"} <= removed
    assert not [word for word in removed if word.startswith(("/", "~", "$"))]
    assert not [command for command in commands if "reset" in command]
