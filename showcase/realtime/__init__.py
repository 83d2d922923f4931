"""Real time: WebSockets that resume where they broke off, shed load, and close when they must.

Fan-out over processes through Redis Streams; a client that comes back gets exactly what it missed.
"""
