"""Batches of images: to train on, decoded by workers, and to evaluate on, each in its place.

In: images or a stream, a schedule of batches. Out: batches on the device. It must not know labels or networks.
"""
