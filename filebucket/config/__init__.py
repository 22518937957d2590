"""The configuration file: read, checked, edited."""
