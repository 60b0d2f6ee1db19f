"""Opens data sets and turns their images into batches.

``sources`` opens what ``--data`` names, ``loading`` reads batches of it, ``augmentation`` makes the views, and
``preview`` draws them. The contracts between these packages are beside them: ``images`` (opened by their index),
``streams`` (read one after another) and ``splits`` (what is for training and what for testing).

In: a :class:`~infomax.data.sources.location.DataLocation`, and a set of views or a preprocessing. Out: batches. It must
not know encoders, methods or recipes.
"""
