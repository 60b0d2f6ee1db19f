"""Tells without labels how a model does: measures of its outputs, and verdicts on a training from its metrics.

In: embeddings, features, probabilities or logits, one row a sample; rows of metrics. Out: numbers and verdicts. It must
not know methods or images.
"""
