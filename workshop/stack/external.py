"""Servers that somebody else runs: the environment says where they are, and here they are only asked.

`answers` asks servers side by side whether they are there; the compose backend looks at its servers with it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from workshop.stack.local.catalogue import SERVERS_BY_NAME
from workshop.stack.model import (
    SERVERS,
    URL_VARIABLES,
    Action,
    OnProgress,
    Phase,
    ServerStatus,
    StackError,
    Urls,
    check_names,
    url_of,
)

PROBE_WITHIN_S = 5.0
NOT_OURS = "use SHOWCASE_STACK=local, or compose, for what starts, stops or breaks servers"


class ExternalBackend:
    """Servers at the URLs in the environment (`URL_VARIABLES` in `model`).

    Args:
        names: which servers; all by default.
        environ: where to find the URLs; the environment of this process by default.
    """

    kind = "external"

    def __init__(self, names: Sequence[str] = SERVERS, environ: Mapping[str, str] = os.environ) -> None:
        self.names = check_names(names)
        self.environ = environ

    def up(self, on_progress: OnProgress | None = None) -> None:
        """Check that every server answers. Raises StackError that names those which do not."""
        silent = [status for status in self._statuses(self.urls(), on_progress) if status.phase != Phase.READY]
        if silent:
            raise StackError(
                "\n".join(f"{status.name} does not answer: {status.detail}" for status in silent),
                "start them, or correct the URLs in the environment",
            )

    def down(self) -> None:
        """Raises StackError: they are not ours to take down."""
        raise StackError("servers that are not ours are not taken down", NOT_OURS)

    def reset(self) -> None:
        """Raises StackError: what they hold is not ours."""
        raise StackError("the data of servers that are not ours is not removed", NOT_OURS)

    def lease(self) -> None:
        """Nothing to take."""

    def release(self) -> None:
        """Nothing was taken."""

    def is_up(self) -> bool:
        return not self._missing()

    def urls(self) -> Urls:
        if missing := self._missing():
            raise StackError(f"the environment does not say {', '.join(missing)}", "export them: see .env.example")
        urls = {variable: self.environ[variable] for variable in variables(self.names)}
        for variable in urls:
            url_of(urls, variable)  # says which one is wrong, before some driver does with the password in it
        return urls

    def status(self) -> list[ServerStatus]:
        if self._missing():
            return [ServerStatus(name=name, phase=Phase.DOWN, detail="its URL is not set") for name in self.names]
        return self._statuses(self.urls(), None)

    def act(self, name: str, action: Action) -> None:
        check_names([name])
        raise StackError("servers that are not ours are not killed, paused or restarted", NOT_OURS)

    def logs(self, name: str, lines: int) -> str:
        check_names([name])
        raise StackError(f"the log of {name} is where {name} runs, not here", "ask whoever runs it")

    def _missing(self) -> list[str]:
        return [variable for variable in variables(self.names) if not self.environ.get(variable)]

    def _statuses(self, urls: Urls, on_progress: OnProgress | None) -> list[ServerStatus]:
        found = []
        for name, answer in answers(urls, self.names).items():
            version, detail = (answer, "") if isinstance(answer, str) else ("", str(answer))
            phase = Phase.DEAD if detail else Phase.READY
            if on_progress is not None:
                on_progress(name, phase, 0.0, detail)
            found.append(
                ServerStatus(name=name, phase=phase, version=version, address=address(urls, name), detail=detail)
            )
        return found


def variables(names: Iterable[str]) -> list[str]:
    """The variables that hold the URLs of some servers."""
    return [variable for name in names for variable in URL_VARIABLES[name]]


def address(urls: Urls, name: str) -> str:
    """Where a server is, for a person; empty when its URL is none."""
    try:
        url = url_of(urls, URL_VARIABLES[name][0])
        return f"{url.hostname}:{url.port}" if url.port else str(url.hostname)
    except (StackError, ValueError):
        return ""


def answers(urls: Urls, names: Iterable[str], within_s: float = PROBE_WITHIN_S) -> dict[str, str | Exception]:
    """Ask servers side by side, each in its own protocol.

    Returns for each its version, or what went wrong: NotReady when it does not answer, TimeoutError when it
    had not by the end of the time, or whatever its driver says of a URL that it cannot read.
    """

    def ask(name: str) -> Callable[[], str]:
        return lambda: SERVERS_BY_NAME[name].probe(urls, within_s * 0.8)

    pool = ThreadPoolExecutor(len(SERVERS), thread_name_prefix="probe")
    asked = {name: pool.submit(ask(name)) for name in names}
    wait(asked.values(), within_s)
    pool.shutdown(wait=False, cancel_futures=True)
    return {name: outcome(future, within_s) for name, future in asked.items()}


def outcome(probe: Future[str], within_s: float) -> str | Exception:
    """What a probe returned or raised, or TimeoutError while it still runs."""
    if not probe.done():
        return TimeoutError(f"nothing for {within_s:g} s")
    error = probe.exception()
    if error is None:
        return probe.result()
    if isinstance(error, Exception):
        return error
    raise error
