"""`Stack`: one handle on the servers, whichever backend runs them."""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import Folder
from workshop.stack.model import SERVERS, Action, Backend, OnProgress, ServerStatus, StackError, Urls

if TYPE_CHECKING:
    from workshop.stack.namespace import Namespace

BACKENDS = ("local", "compose", "external")


class Stack:
    """The servers of a run.

    Args:
        backend: who runs them; `chosen_backend()` follows SHOWCASE_STACK.

    Used as a context manager it gives back, at the end, only what it took: a private stack goes, a shared
    one stays up.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @classmethod
    def attach(cls) -> "Stack":
        """The stack that is up, which stays up until `close` even if it is ephemeral. Raises StackError."""
        stack = cls(chosen_backend())
        if not stack.backend.is_up():
            raise StackError("the stack is not up", "run `workshop up`")
        stack.backend.lease()
        return stack

    @classmethod
    def up(cls, on_progress: OnProgress | None = None) -> "Stack":
        """The stack, brought up if it was not. Raises StackError."""
        stack = cls(chosen_backend())
        stack.backend.up(on_progress)
        return stack

    @classmethod
    def private(cls, servers: Sequence[str] = SERVERS, on_progress: OnProgress | None = None) -> "Stack":
        """Some servers of one's own, to break: own folder, ports and passwords; gone with this process.

        Args:
            servers: their names; a server that another one needs must be named as well.

        Raises StackError.
        """
        if not servers:
            raise StackError("no server is named", f"there are {', '.join(SERVERS)}")
        backend = LocalBackend(Folder.of_checkout().fresh_private(), servers, ephemeral=True, private=True)
        backend.up(on_progress)
        return cls(backend)

    @property
    def urls(self) -> Urls:
        """Environment variables that say where the servers are. Raises StackError when they are not up."""
        return self.backend.urls()

    def status(self) -> list[ServerStatus]:
        """Every server as it is now."""
        return self.backend.status()

    def server(self, name: str) -> "ServerHandle":
        """A handle to kill, pause, resume or restart one server."""
        return ServerHandle(self.backend, name)

    def namespace(self, name: str | None = None) -> "Namespace":
        """A fresh namespace, created; dropped at the end of its `with` block. Raises StackError."""
        from workshop.stack.namespace import Namespace

        return Namespace.create(self.urls, name)

    def close(self) -> None:
        """Give back what this object took: a private stack ends here."""
        self.backend.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServerHandle:
    """One server of a stack, for lessons and tests that break it; each call returns when it has happened."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.backend = backend
        self.name = name

    def kill(self) -> None:
        """SIGKILL its whole process group."""
        self._act("kill")

    def pause(self) -> None:
        """SIGSTOP its whole process group: it keeps its connections and answers nothing."""
        self._act("pause")

    def resume(self) -> None:
        """SIGCONT its whole process group."""
        self._act("resume")

    def restart(self) -> None:
        """Stop it, if it runs, start it on the same ports and wait until it is ready."""
        self._act("restart")

    def status(self) -> ServerStatus:
        """What it is doing now."""
        for status in self.backend.status():
            if status.name == self.name:
                return status
        raise StackError(f"this stack has no {self.name}", "name it when you make the stack")

    def _act(self, action: Action) -> None:
        self.backend.act(self.name, action)


def chosen_backend(*, ephemeral: bool = False) -> Backend:
    """The backend that SHOWCASE_STACK names: local (the default), compose or external. Raises StackError."""
    match os.environ.get("SHOWCASE_STACK") or "local":
        case "local":
            return LocalBackend(ephemeral=ephemeral)
        case "compose":
            from workshop.stack.compose import ComposeBackend

            return ComposeBackend(ephemeral=ephemeral)
        case "external":
            from workshop.stack.external import ExternalBackend

            return ExternalBackend()
        case other:
            raise StackError(f"SHOWCASE_STACK={other} is not a kind of stack", f"use one of {', '.join(BACKENDS)}")
