"""The workshop's pictures: one function a picture, one palette and one style for all of them.

A picture drawn from the same data is the same SVG to the byte, so that a notebook's stored picture can be
compared with the one it draws next. Each brings its own light paper (it reads on a dark page too), says in
its `alt` text what it shows, and labels lines and lanes where they are instead of in a legend.
"""

from workshop.pictures.flow import Throughput, throughput
from workshop.pictures.journey import journeys
from workshop.pictures.reach import where_orders_have_been
from workshop.pictures.redraw import Live, live
from workshop.pictures.style import Picture
from workshop.pictures.system import system_map

__all__ = ["Live", "Picture", "Throughput", "journeys", "live", "system_map", "throughput", "where_orders_have_been"]
