"""What can be done with accounts, sessions, tokens and factors, and what that needs."""
