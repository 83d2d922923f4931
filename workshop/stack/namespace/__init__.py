"""Namespaces: everything that one run creates in the servers, made together and dropped together.

One module a system says what a namespace is in it: how it is made, what traces of it can be found, and how
they are removed. The servers themselves are the registry of namespaces, so those of a process that was
killed are found as well.
"""

from workshop.stack.namespace.namespace import Namespace, leftovers, names_left, reset

__all__ = ["Namespace", "leftovers", "names_left", "reset"]
