"""The papers' figures: each is a file of ``catalogue`` and a line in its list, behind one contract.

In: run folders, or nothing. Out: a picture, and its numbers as CSV beside it. No figure trains a run: it says which
command makes the runs that it needs. Nothing here knows the command line.
"""
