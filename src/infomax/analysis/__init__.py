"""Measures what a model's outputs tell without labels: spread, rank, collapse, use of prototypes.

In: embeddings, features, probabilities or logits, one row a sample. Out: numbers. It must not know methods, images or
runs.
"""
