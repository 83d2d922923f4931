"""The story's domain: a grocer's products, households and orders, and the saga an order goes through."""
