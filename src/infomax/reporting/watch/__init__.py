"""Shows runs while they train: a picture in the terminal, lines in a file, a page on this machine.

In: run folders, of which ``config.json`` and ``metrics.jsonl`` are read as they grow. Out: text, or a page by HTTP. It
must not change a run, nor import torch.
"""
