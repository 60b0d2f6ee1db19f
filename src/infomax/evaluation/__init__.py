"""The protocols by which encoders are evaluated, behind one contract (:mod:`infomax.evaluation.protocol`).

In: an encoder by its name, labelled images. Out: rows of results. It must not know methods or recipes.
"""
