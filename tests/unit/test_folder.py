"""A stack's state folder: whose it is, what is written in it, its locks."""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from workshop.stack.local.folder import Folder, fresh_log, last_lines, read_json, write_json
from workshop.stack.model import StackError

WITHIN_S = 20
HOLD = """
import sys, time
from pathlib import Path
from workshop.stack.local.folder import Folder
held = Folder(Path(sys.argv[1])).acquire("leases", shared=True)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "state")
    made.make()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- whose it is


def test_every_checkout_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one, other = Folder.of_checkout(tmp_path / "one"), Folder.of_checkout(tmp_path / "other")
    assert one.path != other.path
    assert one.path == Folder.of_checkout(tmp_path / "one").path


def test_the_folder_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWCASE_STATE_HOME", str(tmp_path))
    assert Folder.of_checkout().path.parent == tmp_path


@pytest.mark.parametrize("unset", [True, False])
def test_without_a_word_it_lies_outside_the_checkout(unset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWCASE_STATE_HOME", "")
    if unset:
        monkeypatch.delenv("SHOWCASE_STATE_HOME")
    assert Folder.of_checkout().path.parent == Path("/", "var", "tmp").resolve()


def test_one_home_by_two_names_is_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    monkeypatch.setenv("SHOWCASE_STATE_HOME", str(tmp_path / "link"))
    assert Folder.of_checkout().path.parent == (tmp_path / "home").resolve()


def test_only_its_owner_can_enter_it(folder: Folder) -> None:
    assert mode(folder.path) == 0o700
    folder.path.chmod(0o755)
    folder.make()
    assert mode(folder.path) == 0o700


def test_a_folder_of_somebody_else_is_not_used(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: folder.path.stat().st_uid + 1)
    for use in (folder.make, folder.exists):
        with pytest.raises(StackError, match="belongs to somebody else") as caught:
            use()
        assert "SHOWCASE_STATE_HOME" in caught.value.remedy


def test_a_link_to_another_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "target")
    with pytest.raises(StackError, match="belongs to somebody else"):
        Folder(tmp_path / "state").make()


def test_a_path_too_long_for_a_socket_is_told_before_anything_is_made(tmp_path: Path) -> None:
    deep = Folder(tmp_path / ("x" * 120))
    with pytest.raises(StackError, match="too long") as caught:
        deep.make()
    assert "SHOWCASE_STATE_HOME" in caught.value.remedy
    assert not deep.path.exists()


def test_a_home_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot use the state folder"):
        Folder(tmp_path / "file" / "state").make()


def test_private_folders_lie_beside_it_and_are_found_again(folder: Folder) -> None:
    one, other = folder.fresh_private(), folder.fresh_private()
    one.make()
    other.make()
    one.postgres.mkdir()
    (folder.path.parent / f"{folder.path.name}-notes").mkdir()
    assert {found.path for found in folder.privates()} == {one.path, other.path}
    assert {one.path.parent, other.path.parent} == {folder.path.parent}


def test_a_private_folder_of_somebody_else_is_left_alone(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.fresh_private().make()
    monkeypatch.setattr(os, "getuid", lambda: folder.path.stat().st_uid + 1)
    assert folder.privates() == []


def test_removing_takes_the_data_that_lies_beside_it_too(folder: Folder) -> None:
    folder.postgres.mkdir()
    folder.remove()
    assert list(folder.path.parent.iterdir()) == []


# -- what is written in it


def test_the_password_is_made_once_and_only_its_owner_reads_it(folder: Folder) -> None:
    password = folder.password()
    assert len(password) >= 32
    assert Folder(folder.path).password() == password
    assert mode(folder.path / "secrets.json") == 0o600


def test_two_folders_have_different_passwords(folder: Folder) -> None:
    other = folder.fresh_private()
    other.make()
    assert folder.password() != other.password()


@pytest.mark.parametrize("content", [b"", b'{"servers": ', b"[]", b"\0" * 100, b"\xff\xfe"])
def test_a_damaged_state_file_is_told_with_what_to_do(folder: Folder, content: bytes) -> None:
    folder.state.write_bytes(content)
    with pytest.raises(StackError, match="damaged") as caught:
        folder.read_state()
    assert "workshop down" in caught.value.remedy


def test_no_state_file_is_no_damage(folder: Folder) -> None:
    assert folder.read_state() == {}


def test_a_file_that_cannot_be_written_keeps_its_old_content(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(folder.state, {"old": True})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("json.dump", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(folder.state, {"new": True})
    assert read_json(folder.state) == {"old": True}
    assert [path.name for path in folder.path.iterdir() if path.is_file()] == ["state.json"]


def test_the_end_of_a_log_is_its_last_lines_that_say_something(folder: Folder) -> None:
    log = folder.log("mail")
    assert last_lines(log, 3) == ""
    log.write_bytes(b"old\n" * 100_000 + b"one\n\n  \ntwo \xff\nthree\n\n")
    assert last_lines(log, 3) == "one\ntwo �\nthree"


def test_the_log_of_last_time_is_kept(folder: Folder) -> None:
    log = fresh_log(folder.log("mail"))
    log.write_text("before")
    assert not fresh_log(log).exists()
    assert (folder.logs / "mail.log.1").read_text() == "before"


# -- its locks


def test_a_lock_is_held_by_one_at_a_time(folder: Folder) -> None:
    with folder.lock("starting"):
        assert folder.is_held("starting")
        with pytest.raises(BlockingIOError), folder.lock("starting"):
            pass
    assert not folder.is_held("starting")


def test_leases_are_shared_until_somebody_wants_them_alone(folder: Folder) -> None:
    with folder.lock("leases", shared=True), folder.lock("leases", shared=True):
        assert folder.is_held("leases", shared=True)
        with pytest.raises(BlockingIOError), folder.lock("leases"):
            pass
    with folder.lock("leases"):
        pass
    assert not folder.is_held("leases", shared=True)


def test_those_who_look_at_a_free_lock_do_not_take_each_other_for_its_holder(folder: Folder) -> None:
    folder.acquire("supervisor").close()
    barrier = threading.Barrier(8)

    def look() -> int:
        barrier.wait()
        return sum(folder.is_held("supervisor") for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert [look.result() for look in [pool.submit(look) for _ in range(8)]] == [0] * 8


def test_looking_leaves_nothing_in_a_folder(folder: Folder) -> None:
    before = sorted(folder.path.iterdir())
    assert not folder.is_held("supervisor")
    assert sorted(folder.path.iterdir()) == before


def test_a_lock_is_given_back_by_a_holder_that_was_killed(folder: Folder) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, folder.path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert folder.is_held("leases", shared=True)
        holder.send_signal(signal.SIGKILL)
    assert not folder.is_held("leases", shared=True)


@pytest.fixture
def waiting(folder: Folder) -> Iterator["list[bool]"]:
    """Somebody holds the lock `starting`, somebody else waits for it; then the folder is removed and made anew."""
    first = folder.acquire("starting")
    with ThreadPoolExecutor(1) as pool:
        started = threading.Event()

        def wait() -> bool:
            started.set()
            with folder.lock("starting", within_s=WITHIN_S):
                return folder.is_held("starting")

        waiter = pool.submit(wait)
        assert started.wait(WITHIN_S)
        shutil.rmtree(folder.path)
        folder.make()
        first.close()
        yield [waiter.result(WITHIN_S)]


def test_whoever_waited_while_the_folder_was_removed_gets_the_lock_of_the_new_one(waiting: "list[bool]") -> None:
    assert waiting == [True]


@pytest.mark.parametrize("others", [[], ["starting.lock"]], ids=["nobody_else", "somebody_else_waiting"])
def test_a_lock_of_a_folder_that_was_removed_at_the_last_moment_is_not_taken_for_one(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    def remove_first(file: IO[bytes], operation: int) -> None:
        monkeypatch.undo()
        shutil.rmtree(folder.path)
        folder.make()
        for name in others:
            (folder.path / name).touch()
        fcntl.flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with folder.lock("starting"):
        assert folder.is_held("starting")


def test_a_lock_in_a_folder_that_is_gone_is_told(folder: Folder) -> None:
    folder.remove()
    with pytest.raises(FileNotFoundError):
        folder.acquire("starting")


def test_a_folder_that_somebody_makes_again_in_the_middle_of_its_removal_stays(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def meanwhile(path: Path, ignore_errors: bool) -> None:
        folder.make()
        (folder.path / "new.lock").touch()
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    (folder.path / "old").touch()
    folder.remove()
    assert {one.name for one in folder.path.iterdir()} >= {"new.lock"}
    assert not (folder.path / "old").exists()
