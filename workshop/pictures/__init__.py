"""The workshop's pictures: one function a picture, one palette and one style for all of them.

A picture drawn from the same data is the same SVG to the byte, so that a notebook's stored picture can be
compared with the one it draws next. Each brings its own light paper (it reads on a dark page too), says in
its `alt` text what it shows, and labels lines and lanes where they are instead of in a legend.
"""

from workshop.pictures.attacks import merkle_path, seal_chains, under_attack, verdicts
from workshop.pictures.audit import (
    audit_hops,
    audit_progress,
    audit_timeline,
    books_compared,
    columns_through,
)
from workshop.pictures.caching import crowds, latencies, reads_over_time
from workshop.pictures.codes import answers_over_time, chances, code_windows, qr_code, truncation
from workshop.pictures.documents import (
    counted_through,
    counts_over_time,
    lives,
    page_times,
    pages_walked,
    plans,
    questions_asked,
    writers_apart,
)
from workshop.pictures.faults import Load, counter_table, under_fire
from workshop.pictures.flow import Throughput, throughput
from workshop.pictures.generations import token_family
from workshop.pictures.hits import best_sellers, hit_ratios
from workshop.pictures.journey import journeys
from workshop.pictures.messages import message_timeline
from workshop.pictures.queueing import queue_drained
from workshop.pictures.reach import where_orders_have_been
from workshop.pictures.realtime import (
    asked_and_told,
    crowd_latencies,
    memory_over_time,
    moved,
    slow_clients,
    told_through,
)
from workshop.pictures.redraw import Live, live
from workshop.pictures.revoking import how_soon, live_children, price_of_revoking
from workshop.pictures.sagas import saga
from workshop.pictures.sessions import session_timeline
from workshop.pictures.staleness import staleness, versions_apart, who_gave_what
from workshop.pictures.style import Picture
from workshop.pictures.system import system_map
from workshop.pictures.tokens import anatomy, attack_matrix, key_changes

__all__ = [
    "Live",
    "Load",
    "Picture",
    "Throughput",
    "anatomy",
    "answers_over_time",
    "asked_and_told",
    "attack_matrix",
    "audit_hops",
    "audit_progress",
    "audit_timeline",
    "best_sellers",
    "books_compared",
    "chances",
    "code_windows",
    "columns_through",
    "counted_through",
    "counter_table",
    "counts_over_time",
    "crowd_latencies",
    "crowds",
    "hit_ratios",
    "how_soon",
    "journeys",
    "key_changes",
    "latencies",
    "live",
    "live_children",
    "lives",
    "memory_over_time",
    "merkle_path",
    "message_timeline",
    "moved",
    "page_times",
    "pages_walked",
    "plans",
    "price_of_revoking",
    "qr_code",
    "questions_asked",
    "queue_drained",
    "reads_over_time",
    "saga",
    "seal_chains",
    "session_timeline",
    "slow_clients",
    "staleness",
    "system_map",
    "throughput",
    "token_family",
    "told_through",
    "truncation",
    "under_attack",
    "under_fire",
    "verdicts",
    "versions_apart",
    "where_orders_have_been",
    "who_gave_what",
    "writers_apart",
]
