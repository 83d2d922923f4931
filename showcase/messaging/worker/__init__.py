"""What runs in the background: the relay, consumers, and the keeper of the parking lot."""
