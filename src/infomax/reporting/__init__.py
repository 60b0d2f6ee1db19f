"""Tables, and what is shown in them: results beside the papers' numbers, recipes, plans.

In: rows, recipes, plans. Out: tables and text. It must not compute results.
"""
