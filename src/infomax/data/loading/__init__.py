"""Loads images in batches: shuffled and cropped by workers for training, in a fixed order for evaluation.

In: images or a stream, a set of views or a preprocessing, a schedule of batches. Out: training batches of bytes on the
device (crops or whole images), evaluation batches of normalised images on the CPU. It must not know labels or networks.
"""
