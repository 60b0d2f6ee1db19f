"""What every other package stands on: ranks and collectives, signals, failures, files, checkpoints, progress bars, checks.

In: plain values, tensors, processes. Out: the same on every rank, files that are whole, errors of one line. It must not
know images, encoders, methods or recipes.
"""
