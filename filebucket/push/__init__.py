"""Receives pushes, whatever protocol brings them."""
