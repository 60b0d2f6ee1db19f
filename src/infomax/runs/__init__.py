"""The run folder: how a run was made, what it measured, and what it left.

In: a recipe, a data location, results. Out: ``config.json``, ``metrics.jsonl``, ``results.jsonl``, typed rows. It must not
know how a run is trained or judged.
"""
