"""Makes random views of images: the settings of views, the random numbers that decide them, and the operations.

In: images as bytes, a key of each image, a seed, an epoch and a set of views. Out: normalised tensors. The same
arguments give the same views, whatever the number of workers or ranks. It must not know where images come from.

``views`` holds the settings, ``draws`` the random numbers, ``operations`` the operations on whole batches (for a GPU),
``kernels`` the same operations on one image at a time (for a CPU), ``randaugment`` further operations on whole batches
for both, and ``make_views`` puts them together.
"""
