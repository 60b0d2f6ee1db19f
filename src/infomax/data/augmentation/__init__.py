"""Views of images: what a set of views is, the random numbers that decide one, and the operations that make it.

In: bytes of images, their index, a seed and an epoch. Out: normalised tensors. The same arguments give the same views,
whatever the number of workers or ranks. It must not know where images come from.
"""
