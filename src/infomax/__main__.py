"""``python -m infomax`` is the command."""

import os
import sys

# python -m puts the working folder first among the places of modules: a file there that has the name of a module, as
# numpy.py, would run. The package itself is found where it is, wherever that was.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from infomax.cli import main

main()
