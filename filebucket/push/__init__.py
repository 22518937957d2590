"""One push, from its name to its outcome, whatever it came by."""
