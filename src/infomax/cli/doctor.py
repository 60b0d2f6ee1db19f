"""Defines the command ``infomax doctor``, whose output fits into a report of an error."""

import sys

from infomax.cli.command import Command
from infomax.diagnosis.options import DoctorOptions
from infomax.runtime.text import show


def doctor(options: DoctorOptions) -> None:
    """Carries out ``infomax doctor``, which ends with exit code 1 if it finds a problem."""
    from infomax.diagnosis.doctor import describe_installation, find_problems, to_json

    sections = []
    for section in describe_installation():
        sections.append(section)
        if not options.json:
            show("\n".join([*([""] if len(sections) > 1 else []), *section.lines()]))
    problems = find_problems(sections)
    show(to_json(sections) if options.json else "\n".join(["", *problems.lines()]))
    if problems.entries:
        sys.exit(1)


DOCTOR = Command(
    "doctor",
    DoctorOptions,
    "Describe this installation and machine, for a report of an error: versions, devices, threads, free disk, caches, "
    "extras, and what is wrong with them. It names neither the user nor the machine.",
    doctor,
)
