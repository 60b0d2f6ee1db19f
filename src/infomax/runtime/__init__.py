"""The base of all other packages: ranks and collectives, signals, failures, files, checkpoints, options, checks.

In: plain values, tensors, processes. Out: values that are the same on every rank, files that are never half written,
errors of one line. It must not know images, encoders, methods or recipes.
"""
