"""What every slice may rely on: errors, events, changes, clock, ids and the few ports all of them need.

Standard library only. Nothing in here knows a framework, a server or a slice, so that any of it can be copied
into another service as it is.
"""
