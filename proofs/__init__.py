"""Experiments that try to break the promises of file-bucket.

Each module is one kind of experiment: it does to a real daemon what disks, kernels,
clients and power failures do, many times, and compares the result with the answers.
``docs/explanation/reliability.rst`` lists the promise behind each one.

The experiments need root, since they mount filesystems, cut networks and limit
processes; and they take time. They change only what they have created.
"""
