"""The servers a workshop runs on, whoever started them.

`Stack` is the one interface: real server processes on this machine (`local`, the default), containers
(`compose`) or servers somewhere else (`external`). Everything a run creates in them lives in a
`Namespace`, so that any number of notebooks, tests and people share one stack without meeting.

    with Stack.attach() as stack, stack.namespace() as names:
        psycopg.connect(names.postgres_url)
"""

from workshop.stack.model import SERVERS, NotReady, Phase, ServerStatus, StackError
from workshop.stack.stack import Stack

__all__ = ["SERVERS", "NotReady", "Phase", "ServerStatus", "Stack", "StackError"]
