"""Encoders, which map images to features: ours, those of timm, torchvision and Hugging Face, and those in checkpoints.

In: a name or a file. Out: an :class:`~infomax.models.encoders.Encoder` with its preprocessing. It must not know how an
encoder is trained or evaluated.
"""
