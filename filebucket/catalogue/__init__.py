"""What is known of every push, beside the files themselves."""
