"""Experiments on the promises that file-bucket makes.

Each module holds one kind of experiment: it does to a real daemon what disks,
kernels, clients and power stations do, again and again, and compares what is left
with what was answered. ``docs/reliability.rst`` says which promise each one is for.

They need root, since they mount filesystems, cut networks and limit what a process
may have; and time. They touch nothing but what they have made themselves.
"""
