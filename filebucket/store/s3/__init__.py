"""Stores files in an object store with the S3 API."""
