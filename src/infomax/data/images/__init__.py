"""Opens images by their index, perhaps with labels: a contract, and one file for each way to hold them.

``contract`` is what the rest takes; ``arrays``, ``files`` and ``pillow`` hold images, and ``selection`` selects some of
them. In: arrays, paths or PIL images. Out: pixels, names, labels and hashes. It must not know what ``--data`` names.
"""
