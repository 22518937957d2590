"""Benchmarks of file-bucket beside programs that do the same work.

``make bench`` runs them. Every case has several contestants. In each round, each
contestant is started, given its loads, and stopped, so that other work on the machine
affects all alike. The first round does not count. Nothing here asserts a time: the
table has the measurements.
"""
