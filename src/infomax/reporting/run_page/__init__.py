"""The page of trained runs: what ``infomax report --out`` writes, one file a section.

In: run folders, files of results, and the images. Out: a page of :mod:`infomax.reporting.pages`. ``build.py`` lists
the sections in their order; each takes the content of ``content.py`` and returns a section, or None if it has nothing
to say. It trains nothing and runs no protocol: features are computed, and what else is shown is in the run folder.
"""
