"""What file-bucket costs, measured beside others that do the same work.

``make bench`` runs it. Every case is a list of contestants; in each round each
of them is started anew, is given its loads, and is stopped, so that what the
machine does meanwhile falls on all alike. The first round is thrown away.
Nothing here asserts a time: the table says what was measured.
"""
