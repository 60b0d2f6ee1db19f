"""Provides what methods and probes share: projectors, prototypes, EMA teacher, BatchNorm, optimisers, schedules.

In: tensors and parameters. Out: the same. It must not know methods, recipes or data.
"""
