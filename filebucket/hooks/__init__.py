"""Scripts of the operator, as bounded child processes."""
