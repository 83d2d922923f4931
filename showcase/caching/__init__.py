"""Distributed caching: fewer database reads, and never an answer staler than was promised.

Two levels with a backplane between processes, one load for all readers of all processes, old answers in need, and
versions by which a slow reader never overwrites what is newer.
"""

from showcase.caching.application.cache import Cache
from showcase.caching.application.counts import Counts
from showcase.caching.domain import Answer, BadKey, Key, Kind, Options, TooSlow, Uncacheable

__all__ = ["Answer", "BadKey", "Cache", "Counts", "Key", "Kind", "Options", "TooSlow", "Uncacheable"]
