"""Pretraining: options are checked, a run folder is made, and its recipe is trained by one process or many.

In: :class:`~infomax.training.options.PretrainOptions`. Out: a run folder. It must not know any method by name.
"""
