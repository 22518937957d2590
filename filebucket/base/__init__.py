"""What everything stands on: errors, text, files, threads, time."""
