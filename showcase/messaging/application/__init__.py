"""What a consumer does with a message, and the ports that messaging needs."""
