"""Recording, proving, and asking."""
