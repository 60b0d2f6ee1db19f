"""From what ``--data`` names to batches of views on a device.

``sources`` opens images, ``loading`` reads and decodes them in batches, ``augmentation`` makes views, ``preview`` draws
them. In: a :class:`~infomax.data.sources.location.DataLocation` and a set of views. Out: batches. It must not know
encoders, methods or recipes.
"""
