"""Keeps the lines on what was decided while a page is made: they are printed, and stand in the page too."""

from infomax.runtime.text import note


class Decisions:
    """Collects lines on what was decided, and prints each of them once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        """The lines so far, in their order."""

    def add(self, line: str) -> None:
        """Prints a line and keeps it, unless it was there before."""
        if line not in self.lines:
            self.lines.append(line)
            note(line)
