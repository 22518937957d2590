"""The foundation of the other packages: errors, text, files, threads, time."""
