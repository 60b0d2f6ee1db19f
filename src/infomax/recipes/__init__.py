"""Holds the recipes: everything that decides the result of a training, and nothing about the machine.

Each method has one file with its settings and recipes; :mod:`infomax.recipes.registry` lists the methods.

In: names and a user's changes. Out: a :class:`~infomax.recipes.schema.Recipe`, and the method, optimizer and learning
rates that are built from it. It must not know the contents of data sets.
"""
