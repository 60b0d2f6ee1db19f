"""Several runs as one piece of work: sweeps over recipes, values and seeds, comparisons of methods, and the demo.

In: a specification. Out: run folders, and a table of them. It must not know how one run is trained or judged.
"""
