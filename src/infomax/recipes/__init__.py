"""Recipes: everything that decides the result of a training, and nothing about the machine.

One file a method with its settings and recipes; :mod:`infomax.recipes.registry` lists the methods. In: names and a user's
changes. Out: a :class:`~infomax.recipes.schema.Recipe`, and what is built from it. It must not know data sets' contents.
"""
