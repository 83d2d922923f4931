"""Over HTTP: tickets, and the client for browsers. Over a WebSocket: everything else."""

from showcase.realtime.api.assets import asset_routes
from showcase.realtime.api.socket import Door, socket_route
from showcase.realtime.api.tickets import ticket_routes

__all__ = ["Door", "asset_routes", "socket_route", "ticket_routes"]
