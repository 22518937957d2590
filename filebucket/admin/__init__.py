"""The admin listener: the status page, metrics and health."""
