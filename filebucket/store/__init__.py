"""Stores files: receives them, makes them durable, publishes them."""
