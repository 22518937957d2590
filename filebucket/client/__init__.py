"""filebucket-push: pushes files, and the output of commands, to a file-bucket server.

It needs only Python 3.9 and its standard library, so that one file, a zipapp, runs on
any machine. It imports nothing of the server. The way of the bytes:

    file, pipe or command -> Source -> Push -> Connection -> server

:mod:`~filebucket.client.main` is the command, :mod:`~filebucket.client.push` one push
from the first request to its receipt.
"""
