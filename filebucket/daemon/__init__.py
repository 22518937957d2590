"""The daemon: its composition, its start and stop, and its log."""
