"""Writes an encoder in the formats of other libraries, and proves that these read it: one file a format.

In: the name of an encoder. Out: a folder or a file, with a model card. Each export is opened by the library that it is
for, in a process of its own, before it gets its name. Nothing here trains or evaluates.
"""
