"""The tests of file-bucket; run them with ``trial filebucket``."""
