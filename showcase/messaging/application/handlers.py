"""Which function handles which type of event: a consumer's registry.

    handlers = Handlers()
    handlers.upcast("shop.order.refused.v1", "shop.order.refused.v2", with_a_reason)
    handlers.on("shop.order.refused.v2", RefusedOrder, notice.tell)

A handler is a plain async function. It runs inside the transaction in which its event is entered into the inbox, so
what it writes happens once. What has to be asked of somebody else (a provider, a mail server) is asked before, by
`ask`: no transaction is held open for it, many are asked at once, and it may be asked twice.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from pydantic import BaseModel, RootModel, ValidationError

from showcase.kernel.errors import Conflict, DomainError, TooMany, Unavailable
from showcase.kernel.events import BrokenEvent, Event
from showcase.messaging.domain import takes

D = TypeVar("D", bound=BaseModel)
A = TypeVar("A")
Upcast = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Anything(RootModel[dict[str, Any]]):
    """The data of a handler that takes every type."""


class Unhandleable(Exception):
    """Nobody here can handle this message, now or ever: park it.

    Args:
        reason: one line, for the person who looks at the parking lot.
    """


@dataclass(frozen=True, slots=True)
class Handler:
    """One entry of the registry."""

    model: type[BaseModel]
    handle: Callable[..., Awaitable[None]]
    ask: Callable[[Event, Any], Awaitable[Any]] | None


@dataclass(slots=True)
class Task:
    """An event with the handler that is its own."""

    event: Event
    data: BaseModel
    handler: Handler
    answer: Any = None

    async def ask(self) -> None:
        """Ask what has to be asked of others; outside of any transaction."""
        if self.handler.ask is not None:
            self.answer = await self.handler.ask(self.event, self.data)

    async def handle(self) -> None:
        """Do what the event asks for; inside the transaction."""
        if self.handler.ask is None:
            await self.handler.handle(self.event, self.data)
        else:
            await self.handler.handle(self.event, self.data, self.answer)


class Handlers:
    """A consumer's registry."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._upcasts: dict[str, tuple[str, Upcast]] = {}

    @overload
    def on(self, type_: str, model: type[D], handle: Callable[[Event, D], Awaitable[None]]) -> None: ...

    @overload
    def on(
        self,
        type_: str,
        model: type[D],
        handle: Callable[[Event, D, A], Awaitable[None]],
        *,
        ask: Callable[[Event, D], Awaitable[A]],
    ) -> None: ...

    def on(
        self,
        type_: str,
        model: type[BaseModel],
        handle: Callable[..., Awaitable[None]],
        *,
        ask: Callable[[Event, Any], Awaitable[Any]] | None = None,
    ) -> None:
        """Have events of a type, or of several (`shop.order.#`), handled.

        Args:
            model: what of the event's data the handler needs to know; more may come with it.
            handle: called in the transaction, with the event, its data and what `ask` has returned.
            ask: called before it, and perhaps again.

        Both raise Unavailable, TooMany or Conflict to be called again later; any other DomainError parks the event at
        once. An error that nobody foresaw is tried again as well, and parked when the ladder ends.
        """
        self._handlers[type_] = Handler(model, handle, ask)

    def upcast(self, old: str, new: str, change: Upcast) -> None:
        """Have events of an old version read as those of the next one: a change of their data."""
        self._upcasts[old] = (new, change)

    @property
    def types(self) -> tuple[str, ...]:
        """All that a queue has to be bound to."""
        return (*self._handlers, *self._upcasts)

    def read(self, attributes: Mapping[str, object], body: bytes) -> Task:
        """The task that a message is. Raises Unhandleable."""
        try:
            event = Event.read(attributes, body)
        except BrokenEvent as error:
            raise Unhandleable(str(error)) from error
        seen = {event.type}
        while event.type in self._upcasts:
            new, change = self._upcasts[event.type]
            if new in seen:
                raise Unhandleable(f"upcasts of {event.type} lead in a circle")
            seen.add(new)
            try:
                event = replace(event, type=new, data=change(event.data))
            except Exception as error:  # whatever it is, the next time it is the same
                raise Unhandleable(f"{event.type} cannot be read as {new}: {error!r}") from error
        handler = self._of(event.type)
        if handler is None:
            raise Unhandleable(f"nobody here handles {event.type}, only {', '.join(self.types)}")
        try:
            data = handler.model.model_validate(event.data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "data"
            raise Unhandleable(f"{event.type}: {place}: {first['msg']}") from error
        return Task(event, data, handler)

    def _of(self, type_: str) -> Handler | None:
        if type_ in self._handlers:
            return self._handlers[type_]
        return next((handler for pattern, handler in self._handlers.items() if takes(pattern, type_)), None)


def is_permanent(error: Exception) -> bool:
    """Whether trying again is no use: an error of the domain, other than one that time may cure."""
    if isinstance(error, Unhandleable):
        return True
    return isinstance(error, DomainError) and not isinstance(error, Unavailable | TooMany | Conflict)
