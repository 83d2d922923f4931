"""Distributed caching: fewer database reads, and never an answer staler than was promised.

Two levels with a backplane between processes, single-flight against stampedes, stale-while-revalidate,
tombstones against late writers.
"""

from showcase.caching.application import Cache, Counts, Key, Kind

__all__ = ["Cache", "Counts", "Key", "Kind"]
