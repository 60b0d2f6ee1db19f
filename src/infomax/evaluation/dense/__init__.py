"""Dense classification: every place of an image gets a class, by the frozen feature map of an encoder.

It takes a folder of images and masks and an encoder, and gives rows with the mean IoU of a linear classifier and of
k-NN. It knows no command and no table.
"""
