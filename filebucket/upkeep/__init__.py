"""Verifies, reindexes and prunes stored files."""
