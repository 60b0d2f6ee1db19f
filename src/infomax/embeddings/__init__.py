"""Features of images in files, and what they are used for: search, duplicates, clusters.

In: an encoder by its name and images, or a file of features. Out: a file of features; tables, lists and pages of
images. It must not know methods, recipes or protocols.
"""
