"""Provides the methods, one file each: the paper's equations as pure functions on top, and one module below.

In: views and progress. Out: a loss. It must not know optimisers, loggers, data sets or recipes.
"""
