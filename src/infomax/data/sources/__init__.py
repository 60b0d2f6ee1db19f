"""Where images come from: arrays, folders, lists, named data sets, Hugging Face tables and shards.

In: what ``--data`` says. Out: a :class:`~infomax.data.splits.Source` with its splits and labels. It must not know views or
batches.
"""
