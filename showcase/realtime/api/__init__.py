"""Over HTTP: tickets. Over a WebSocket: everything else."""

from showcase.realtime.api.socket import Door, socket_route
from showcase.realtime.api.tickets import ticket_routes

__all__ = ["Door", "socket_route", "ticket_routes"]
