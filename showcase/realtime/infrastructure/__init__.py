"""The stream of events and the tickets, in Redis."""
