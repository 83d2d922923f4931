"""The rules of authentication: no I/O, no framework."""
