"""What lesson 11 does over WebSockets: each module is one experiment, with app processes and a Redis that are real."""
