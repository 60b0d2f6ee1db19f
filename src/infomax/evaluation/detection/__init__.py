"""Detection and instance segmentation by Mask R-CNN on top of an encoder.

Comes in: an encoder, a folder in COCO's format, the options of ``infomax evaluate detect``. Comes out: a row with the
AP of boxes and masks, and pictures of some images. It knows no report and no page.
"""
