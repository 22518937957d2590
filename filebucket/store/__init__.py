"""Where files are kept: written aside, made durable, published."""
