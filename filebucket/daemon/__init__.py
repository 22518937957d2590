"""The daemon: its composition, its life, and what it tells."""
