"""Pushes, buckets and series: values and pure rules."""
