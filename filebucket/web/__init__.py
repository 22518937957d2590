"""Pushes over HTTP: URLs, headers, forms and answers."""
