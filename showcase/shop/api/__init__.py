"""The shop over HTTP: what is ordered and sold, and the views of orders."""
