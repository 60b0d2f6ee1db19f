"""``python -m infomax`` is the command."""

from infomax.cli import main

main()
