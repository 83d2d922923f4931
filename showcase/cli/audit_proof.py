"""`showcase audit verify`, `prove` and `check`: that nothing of the audit was touched, shown to whoever asks.

Exit codes: 0 when all is as it was sealed, or a proof holds; 1 when it is not; 2 for what was asked for wrongly.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from showcase.cli.messages import plain
from showcase.cli.telling import told
from showcase.kernel.clock import system_clock
from showcase.platform.settings import Misconfigured

if TYPE_CHECKING:
    from showcase.audit.application.books import Checked, Report
    from showcase.platform.resources import Resources

proof = typer.Typer(no_args_is_help=True)

T = TypeVar("T")
PublicKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--key", help="A public key of ours, in hexadecimal; may be given several times. Else that of the settings."
    ),
]


@proof.command()
def verify(
    topic: Annotated[str | None, typer.Option(help="This one only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object in place of lines.")] = False,
    key: PublicKeys = None,
    grace_s: Annotated[float, typer.Option(min=0, help="How young a record without a seal may be.")] = 30.0,
) -> None:
    """Compare every record with its seal, and every seal with its anchors. Exit code 1 if anything was touched."""

    def tell(checked: "Checked") -> None:
        if not as_json:
            typer.echo(plain(line_of(checked)))

    async def verified(resources: "Resources") -> "Report":
        from showcase.audit import wiring

        return await wiring.verify(
            resources, public_keys(key), topic=topic, grace=timedelta(seconds=grace_s), tell=tell
        )

    report = with_resources(verified)
    if as_json:
        typer.echo(json.dumps(as_values(report), default=str))
    else:
        for line in lines_of(report):
            typer.echo(plain(line))
    if not report.is_clean:
        raise typer.Exit(1)


@proof.command()
def prove(record_id: Annotated[str, typer.Argument(help="As timelines show it.")]) -> None:
    """Print the proof of one record: what anybody needs, besides our public key, to check it."""

    async def proven(resources: "Resources") -> dict[str, Any]:
        from showcase.audit import wiring

        return await wiring.proof(resources, record_id)

    typer.echo(json.dumps(with_resources(proven), indent=2))


@proof.command()
def check(
    file: Annotated[Path, typer.Argument(help="A proof.", exists=True, dir_okay=False, readable=True)],
    key: PublicKeys = None,
) -> None:
    """Check a proof with nothing but itself and our public key: no server is asked. Exit code 1 if it does not hold."""
    with told("audit") as settings:
        from showcase.audit.application import proving
        from showcase.audit.infrastructure.anchors import Key, Keys
        from showcase.audit.infrastructure.proof import opened

        keys = public_keys(key) or [Key(settings.anchor_seed()).public]
        try:
            given = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise proving.BadProof(f"no proof: no JSON: {error}") from error
        proven = proving.check(given, Keys(*keys).check, opened)
        typer.echo(
            plain(
                f"proven: {proven.record} ({proven.entity}) was sealed with this content when anchor"
                f" {proven.anchor} was made, at {proven.anchored_at.isoformat(timespec='seconds')}"
            )
        )


def public_keys(given: Sequence[str] | None) -> list[bytes]:
    """Raises Misconfigured for one that is none."""
    try:
        keys = [bytes.fromhex(one) for one in given or ()]
    except ValueError:
        keys = [b""]
    if any(len(one) != 32 for one in keys):
        raise Misconfigured("--key is a public key of 64 hexadecimal digits")
    return keys


def line_of(checked: "Checked") -> str:
    """What there is of one partition."""
    more = f", {checked.unsealed:,} not sealed yet" if checked.unsealed else ""
    lost = f", {checked.lost:,} messages lost before they were read" if checked.lost else ""
    return (
        f"{checked.topic}:{checked.partition}: {checked.records:,} records under {checked.seals:,} seals,"
        f" up to {checked.next:,}{more}{lost}"
    )


def lines_of(report: "Report") -> list[str]:
    """Findings, the first one first, and what the verdict rests on."""
    lines = [str(finding) for finding in report.findings]
    if report.found:
        first = next(finding for finding in report.findings if finding.is_tampering)
        told_ = sum(finding.is_tampering for finding in report.findings)
        more = f" ({report.found - told_:,} are not shown)" if report.found > told_ else ""
        lines.append(f"TOUCHED: {report.found:,} findings{more}, the first one: {first}")
    else:
        lines.append(f"clean: {report.records:,} records, {len(report.by_partition):,} partitions")
    if report.anchored_at is None:
        lines.append("there is no anchor: had all seals been made anew, or their end cut off, nobody would see it")
    else:
        age_s = (system_clock() - report.anchored_at).total_seconds()
        lines.append(
            f"{report.anchors:,} anchors, the last one {age_s:,.0f} s old: what came after it could have been cut off,"
            " or made anew, unseen"
        )
    return lines + report.notes


def as_values(report: "Report") -> dict[str, Any]:
    """The same, for a program."""
    return {
        "clean": report.is_clean,
        "records": report.records,
        "partitions": [asdict(checked) for checked in report.by_partition.values()],
        "found": report.found,
        "findings": [asdict(finding) for finding in report.findings],
        "anchors": report.anchors,
        "anchored_at": report.anchored_at and report.anchored_at.isoformat(),
        "notes": report.notes,
    }


def with_resources(work: "Callable[[Resources], Awaitable[T]]") -> T:
    """What something comes to that is done with connections of its own."""
    with told("audit") as settings:
        from showcase.platform.resources import Resources

        async def worked() -> T:
            async with Resources(settings) as resources:
                return await work(resources)

        return asyncio.run(worked())
