"""The run folder: how a run was made, what it measured, and what it left.

In: a recipe, a data location, rows of metrics and results. Out: ``config.json``, ``metrics.jsonl``, ``results.jsonl``,
and the same read back. It must not know how a run is trained or evaluated.
"""
