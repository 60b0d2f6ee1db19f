"""Decodes image files to 8-bit RGB, upright: opening, loading, conversion, and mending of damaged ones.

``decoder`` is what the rest calls. In: an encoded image, and what the user decided about it (``options``). Out: its
pixels, or one error that names it. It must not know data sets, nor images that stay numbers (``number_files``).
"""
