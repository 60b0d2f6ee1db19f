"""Opens data sets: arrays, folders and lists of image files, data sets by name, Hugging Face tables and tar shards.

In: what ``--data`` names, as a :class:`~infomax.data.sources.location.DataLocation`. Out: a
:class:`~infomax.data.splits.Source` with its splits, labels and classes. It must not know views, batches or encoders.
"""
