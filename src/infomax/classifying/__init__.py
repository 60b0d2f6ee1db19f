"""Classifiers of a user's own classes: fitted on labelled images, run on new ones, tested on others, kept in a folder.

In: an encoder by its name and labelled images, or the folder of a classifier and images. Out: that folder, which needs
neither the encoder's origin nor the images again; labels with calibrated probabilities; scores. It must not know
methods, recipes or protocols.
"""
