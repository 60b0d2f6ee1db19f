"""Describes an installation of infomax and its machine, for ``infomax doctor`` and reports of errors.

In: nothing but the process and its machine. Out: entries in sections, as text or JSON, and the problems among them. It
must not know what a command computes, and must work if torch cannot be imported.
"""
