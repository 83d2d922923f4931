"""What clients and servers say, the hub between the stream and the clients, and what they need."""
