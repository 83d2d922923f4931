"""Real time: WebSockets that resume where they broke off, shed load, and close when they must.

One stream of events in Redis, read once by every process and fanned out to the clients that follow its topics. A client
that comes back, also to another process, gets exactly what it missed, or is told that it cannot. What waits for a slow
client is bounded, by the policy of its topic.
"""
