"""Real servers as processes of this machine: no Docker, and no root beyond installing Debian packages.

One supervisor process (`supervisor`) owns the servers of a stack; each server is a small module of the
same shape (`server.Server`). `backend` is what the rest of the workshop talks to.
"""
