"""What a lesson calls: real processes, real baskets, a look into every server, and checks.

from workshop.lab import Lab

lab = Lab("00", capture=["orders"])
"""

from workshop.lab.checks import CheckFailed
from workshop.lab.lab import Lab

__all__ = ["CheckFailed", "Lab"]
