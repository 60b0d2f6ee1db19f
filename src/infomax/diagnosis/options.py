"""Options of the description of an installation."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """A frozen dataclass that holds all options of ``infomax doctor``."""

    json: bool = False
    """Print one JSON object, for programs."""
