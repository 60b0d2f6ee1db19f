"""Pages that people look at: one HTML file each, which loads nothing and can be read without scripts.

In: tables, numbers, small pictures and names. Out: the text of an HTML file. It must not compute results, read runs or
images, or import torch. What a page ships, style and scripts, lies in ``assets`` and is shipped as it stands there.
"""
