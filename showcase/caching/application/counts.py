"""What happened in one process."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What happened so far in this process. Each read is counted once: near, far, miss or stale.

    Attributes:
        near: answers from this process's memory; far: from Redis; misses: from the source.
        stale: old answers, since nothing newer was to be had in time.
        absent: of all of these, how many said that there is nothing.
        loads: calls of a source, which readers share; failed_loads: those that brought nothing.
        load_s: how long they took together.
        early: refreshes before an answer had expired.
        waits: loads that waited for another process's.
        refused: loads that were not stored, since something newer was, or the key had been changed.
        far_failures: calls that Redis did not answer.
        broken: entries that could not be read.
        heard: news of other processes' changes.
        lost: how often news may have been missed, so that nothing in memory counted any longer.
    """

    near: int = 0
    far: int = 0
    misses: int = 0
    stale: int = 0
    absent: int = 0
    loads: int = 0
    failed_loads: int = 0
    load_s: float = 0.0
    early: int = 0
    waits: int = 0
    refused: int = 0
    far_failures: int = 0
    broken: int = 0
    heard: int = 0
    lost: int = 0
