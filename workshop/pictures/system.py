"""The map of the system: how a basket travels, with the servers that run now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    RULE,
    SMALL_PT,
    SYSTEM,
    Picture,
    picture,
    readable,
    sheet,
    shortened,
    tint,
)

WIDTH, HEIGHT = 960.0, 580.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Something on the map, by its centre and size.

    Attributes:
        shape: a process is ours, a store keeps things, a queue passes them on, a browser has a person before it.
        server: whose version stands under the name; empty for what is no server.
        detail: lines under the name and version.
    """

    at: tuple[float, float]
    size: tuple[float, float]
    shape: Literal["process", "store", "queue", "browser"]
    name: str
    colour: str = SYSTEM["app"]
    server: str = ""
    program: str = ""
    detail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A way from one point to another.

    Attributes:
        track: its colour: HTTP, SQL, AMQP, change data capture or WebSocket.
        step: its number in the journey; 0 for none.
        label: lines of text; above a level arrow (or below it), to the right of an upright one.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    track: str
    label: tuple[str, ...] = ()
    step: int = 0
    below: bool = False


HTTP, SQL, AMQP, CDC, SOCKET, STREAM, MAIL = (
    SYSTEM[name] for name in ("app", "postgres", "rabbitmq", "kafka", "websocket", "redis", "mail")
)

# Six columns and four rows. Every arrow is straight, and none crosses another.
BROWSER, APP, STORE, STEP, QUEUE, WORK = 74.0, 232.0, 410.0, 580.0, 734.0, 884.0
LIVE, ASK, PAID, CHANGE = 464.0, 362.0, 260.0, 108.0

BOXES: Sequence[Box] = (
    Box(
        at=(BROWSER, 413),
        size=(100, 180),
        shape="browser",
        name="household",
        detail=("signs in,", "sends its", "basket"),
    ),
    Box(at=(APP, 413), size=(112, 180), shape="process", name="shop app", detail=("FastAPI", "HTTP and", "WebSocket")),
    Box(at=(STORE, LIVE), size=(122, 76), shape="store", name="Redis state", colour=STREAM, server="redis-state"),
    Box(at=(APP, PAID - 22), size=(112, 76), shape="store", name="Redis cache", colour=STREAM, server="redis-cache"),
    Box(
        at=(STORE, 311),
        size=(122, 178),
        shape="store",
        name="PostgreSQL",
        colour=SQL,
        server="postgres",
        detail=("order + outbox", "row, written in", "one transaction"),
    ),
    Box(at=(STEP, LIVE), size=(96, 48), shape="process", name="realtime"),
    Box(at=(STEP, ASK), size=(96, 48), shape="process", name="relay"),
    Box(at=(STEP, PAID), size=(96, 48), shape="process", name="shop", detail=("worker",)),
    Box(
        at=(QUEUE, 362),
        size=(92, 280),
        shape="queue",
        name="RabbitMQ",
        colour=AMQP,
        server="rabbitmq",
        detail=("events", "in quorum", "queues"),
    ),
    Box(at=(WORK, LIVE), size=(96, 66), shape="process", name="payment", detail=("worker",)),
    Box(at=(WORK, 378), size=(96, 48), shape="process", name="stock", detail=("worker",)),
    Box(at=(WORK, 300), size=(96, 48), shape="process", name="notice", detail=("worker",)),
    Box(at=(WORK, 206), size=(96, 56), shape="store", name="mail", colour=MAIL, server="mail"),
    Box(
        at=(STORE, CHANGE),
        size=(122, 64),
        shape="queue",
        name="Debezium",
        colour=CDC,
        server="connect",
        program="Connect",
    ),
    Box(at=(STEP, CHANGE), size=(96, 64), shape="queue", name="Kafka", colour=CDC, server="kafka"),
    Box(at=(QUEUE, CHANGE), size=(92, 48), shape="process", name="audit", detail=("worker",)),
    Box(at=(WORK, CHANGE), size=(96, 76), shape="store", name="MongoDB", colour=SYSTEM["mongo"], server="mongo"),
)

ARROWS: Sequence[Arrow] = (
    Arrow(start=(124, ASK), end=(176, ASK), track=HTTP, label=("order",), step=1),
    Arrow(start=(288, ASK), end=(349, ASK), track=SQL, label=("commit",), step=2),
    Arrow(start=(471, ASK), end=(532, ASK), track=SQL, label=("outbox",), step=3),
    Arrow(start=(628, ASK), end=(688, ASK), track=AMQP, label=("publish",), step=4),
    Arrow(start=(780, LIVE + 13), end=(836, LIVE + 13), track=AMQP, label=("placed",), step=5),
    Arrow(start=(836, LIVE - 13), end=(780, LIVE - 13), track=AMQP, label=("taken",), step=6, below=True),
    Arrow(start=(780, 378), end=(836, 378), track=AMQP),
    Arrow(start=(780, 300), end=(836, 300), track=AMQP),
    Arrow(start=(688, PAID), end=(628, PAID), track=AMQP, label=("taken",), step=7),
    Arrow(start=(532, PAID), end=(471, PAID), track=SQL, label=("paid",), step=8),
    Arrow(start=(688, LIVE), end=(628, LIVE), track=AMQP, label=("events",)),
    Arrow(start=(532, LIVE), end=(471, LIVE), track=STREAM, label=("stream",)),
    Arrow(start=(349, LIVE), end=(288, LIVE), track=STREAM, label=("stream",)),
    Arrow(start=(176, LIVE), end=(124, LIVE), track=SOCKET, label=("live",), step=9),
    Arrow(start=(APP, 323), end=(APP, 277), track=STREAM, label=("product", "reads")),
    Arrow(start=(WORK, 276), end=(WORK, 235), track=MAIL, label=("SMTP",)),
    Arrow(start=(STORE, 222), end=(STORE, 141), track=CDC, label=("every change", "of a row (WAL)")),
    Arrow(start=(471, CHANGE), end=(532, CHANGE), track=CDC, label=("changes",)),
    Arrow(start=(628, CHANGE), end=(688, CHANGE), track=CDC, label=("topics",)),
    Arrow(start=(780, CHANGE), end=(836, CHANGE), track=SYSTEM["mongo"], label=("history",)),
)


def system_map(versions: Mapping[str, str]) -> Picture:
    """The map of the system: what a basket passes on its way from the browser to the audit timeline.

    Args:
        versions: of each server that runs, by its name in the stack (`postgres`, `redis-cache`, …); one that
            is missing or empty is drawn as not running.

    Raises:
        ValueError: no server is called that.
    """
    servers = {box.server: box.name for box in BOXES if box.server}
    if unknown := sorted(set(versions).difference(servers)):
        raise ValueError(f"versions: no server is called {', '.join(unknown)}; servers: {', '.join(servers)}")
    with sheet(WIDTH, HEIGHT, "How a basket travels", "from the browser through every system, and back") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        axes.set_axis_off()
        _panel(axes, (510, 166), (434, 352), "work queues: AMQP", AMQP)
        _panel(axes, (330, 24), (614, 130), "change data capture: the audit trail", CDC)
        _key(axes)
        for arrow in ARROWS:
            _arrow(axes, arrow)
        for box in BOXES:
            _box(axes, box, versions.get(box.server, "").strip())
        return picture(figure, _alt(servers, versions))


def _alt(servers: Mapping[str, str], versions: Mapping[str, str]) -> str:
    seen = (f"{name} {versions.get(server, '').strip() or 'not running'}" for server, name in servers.items())
    return (
        "Map of the system. A household's basket goes over HTTP to the shop app, which writes order and outbox row to "
        "PostgreSQL in one transaction; a relay publishes it to RabbitMQ; payment, stock and notice workers act on it; "
        "the shop worker marks it paid. Debezium captures every change into Kafka, from which the audit worker writes "
        "timelines to MongoDB. Events reach the browser through Redis and a WebSocket. "
        f"Servers: {', '.join(seen)}."
    )


def _panel(axes: Axes, corner: tuple[float, float], size: tuple[float, float], title: str, colour: str) -> None:
    shape = "round,pad=0,rounding_size=14"
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, fc=tint(colour, 0.09), ec="none"))
    axes.text(corner[0] + 16, corner[1] + 11, title, fontsize=SMALL_PT, color=readable(colour))


def _key(axes: Axes) -> None:
    axes.add_patch(_rounded((24, 62), (26, 17), 4, SYSTEM["app"], SYSTEM["app"]))
    axes.text(60, 70.5, "ours: a process of the workshop", va="center", fontsize=SMALL_PT, color=QUIET)
    axes.add_patch(_rounded((24, 34), (26, 17), 4, tint(QUIET), QUIET))
    axes.text(60, 42.5, "a server, and its version now", va="center", fontsize=SMALL_PT, color=QUIET)


def _arrow(axes: Axes, arrow: Arrow) -> None:
    style = "-|>,head_length=7,head_width=3.6"
    axes.add_patch(
        FancyArrowPatch(
            arrow.start,
            arrow.end,
            arrowstyle=style,
            mutation_scale=1,
            lw=2.6,
            color=arrow.track,
            shrinkA=3,
            shrinkB=3,
            joinstyle="miter",
        )
    )
    x, y = (arrow.start[0] + arrow.end[0]) / 2, (arrow.start[1] + arrow.end[1]) / 2
    level = arrow.start[1] == arrow.end[1]
    colour = readable(arrow.track)
    if level:
        y_label = y - 21 if arrow.below else y + 12
        axes.text(x, y_label, "\n".join(arrow.label), ha="center", fontsize=SMALL_PT, color=colour)
    else:
        axes.text(x + 10, y, "\n".join(arrow.label), va="center", fontsize=SMALL_PT, color=colour, linespacing=1.3)
    if arrow.step:
        axes.add_patch(Circle((x, y), 8.5, fc=colour, ec="none", zorder=3))
        axes.text(
            x, y, str(arrow.step), ha="center", va="center_baseline", fontsize=10, weight="bold", color=PAPER, zorder=4
        )


def _box(axes: Axes, box: Box, version: str) -> None:
    (x, y), (width, height) = box.at, box.size
    running = bool(version) or not box.server
    ours = box.shape == "process"
    edge = box.colour if running else RULE
    face = box.colour if ours else tint(edge, 0.22)
    if box.shape == "store":
        axes.add_patch(_cylinder(box, face, edge))
        y -= 5
    else:
        corner = (x - width / 2, y - height / 2)
        rounding = {"queue": height / 2 if height < width else width / 2, "process": 9, "browser": 9}[box.shape]
        axes.add_patch(_rounded(corner, box.size, rounding, PAPER if box.shape == "browser" else face, edge))
    if box.shape == "browser":
        _browser(axes, box)
    lines = [(box.name, NAME_PT, True, PAPER if ours else INK)]
    if box.server:
        seen = shortened(f"{box.program} {version}".strip(), width - 14, SMALL_PT) if version else "not running"
        lines.append((seen, SMALL_PT, False, QUIET if version else MEANING["failed"]))
    lines += [(text, SMALL_PT, False, "#DCE3E8" if ours else QUIET) for text in box.detail]
    top = y + (len(lines) - 1) * 8.0
    for index, (text, size, bold, colour) in enumerate(lines):
        weight = "bold" if bold else "normal"
        axes.text(
            x, top - index * 16, text, ha="center", va="center_baseline", fontsize=size, weight=weight, color=colour
        )


def _rounded(
    corner: tuple[float, float], size: tuple[float, float], rounding: float, face: str, edge: str
) -> FancyBboxPatch:
    return FancyBboxPatch(corner, *size, boxstyle=f"round,pad=0,rounding_size={rounding}", fc=face, ec=edge, lw=1.8)


def _browser(axes: Axes, box: Box) -> None:
    left, top = box.at[0] - box.size[0] / 2, box.at[1] + box.size[1] / 2
    axes.plot((left, left + box.size[0]), (top - 18, top - 18), color=box.colour, lw=1.8)
    for dot in range(3):
        axes.add_patch(Circle((left + 12 + 10 * dot, top - 9), 2.6, fc=box.colour, ec="none"))


def _cylinder(box: Box, face: str, edge: str) -> PathPatch:
    """An upright cylinder: its outline, then the front half of the lid."""
    (x, y), (width, height) = box.at, box.size
    left, right, low, high, bulge = x - width / 2, x + width / 2, y - height / 2 + 8, y + height / 2 - 8, 8 * 4 / 3
    points = [
        (left, low), (left, low - bulge), (right, low - bulge), (right, low),
        (right, high), (right, high + bulge), (left, high + bulge), (left, high), (left, low),
        (left, high), (left, high - bulge), (right, high - bulge), (right, high),
    ]  # fmt: skip
    codes = [
        Path.MOVETO,
        *[Path.CURVE4] * 3,
        Path.LINETO,
        *[Path.CURVE4] * 3,
        Path.LINETO,
        Path.MOVETO,
        *[Path.CURVE4] * 3,
    ]
    return PathPatch(Path(points, codes), fc=face, ec=edge, lw=1.8)
