"""The operator's scripts, as bounded child processes."""
