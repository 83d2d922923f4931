"""Each rule removed from the source once, to see the test fail that is there for it.

A test that passes with or without its rule protects nothing. `python -m tests.mutations auth` takes the rules of one
list (`MUTATIONS` in `tests/mutations/auth.py`), removes them one by one in a copy of the sources, and runs the test
that has to notice.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One rule, how to remove it, and who must notice.

    Attributes:
        rule: what holds, in a few words.
        file: from the root of the project, `showcase/auth/domain/tokens.py`.
        old: text that occurs once in the file; `new` is put in its place.
        tests: node ids of pytest. Each passes as things are; at least one fails without the rule.
    """

    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def rule(what: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    """A mutation, in one call."""
    return Mutation(rule=what, file=file, old=old, new=new, tests=tests)
