"""Computes what a run will cost before it starts: steps, FLOPs, memory, communication and time.

In: a recipe and a machine. Out: a :class:`~infomax.planning.plan.Plan`. It must not write anything.
"""
