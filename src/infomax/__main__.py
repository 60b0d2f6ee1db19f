"""``python -m infomax`` is the command, and ``infomax`` is :func:`main` of this file.

It imports nothing of the package at its top, so that Ctrl-C in the first half of a second is one line too.
"""

import os
import sys


def main() -> None:
    """Runs the command; see :func:`infomax.cli.main` for its exit codes."""
    if sys.platform == "win32":
        from infomax.runtime.systems import WINDOWS

        os.write(2, f"infomax: {WINDOWS}\n".encode())
        sys.exit(1)
    try:
        from infomax.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        os.write(2, b"\ninfomax: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    # python -m puts the working folder first among the places of modules: a file there that has the name of a module,
    # as numpy.py, would run. The package itself is found where it is, wherever that was.
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    main()
