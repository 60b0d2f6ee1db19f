"""Features of images: extraction by an encoder, a cache on disk, and exact search for nearest neighbours.

In: an encoder and images. Out: matrices with one row an image. It must not know labels or protocols.
"""
