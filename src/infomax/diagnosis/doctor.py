"""Yields the sections of the description of an installation, the quick ones first."""

import json
from collections.abc import Iterator, Sequence

from infomax.diagnosis.caches import describe_caches
from infomax.diagnosis.entries import Entry, Section
from infomax.diagnosis.machine import (
    cache_folders,
    describe_devices,
    describe_memory,
    describe_threads,
    describe_variables,
)
from infomax.diagnosis.software import describe_extras, describe_infomax, describe_packages


def describe_installation() -> Iterator[Section]:
    """Yields each section as soon as it is known, so that something is seen before torch is imported."""
    yield describe_infomax()
    yield describe_packages()
    yield describe_devices()
    yield describe_threads()
    yield describe_memory()
    yield describe_caches(cache_folders())
    yield describe_extras()
    yield describe_variables()


def find_problems(sections: Sequence[Section]) -> Section:
    """Returns the problems of all sections, as a section of their own."""
    found = [entry.problem for section in sections for entry in section.entries if entry.problem]
    entries = [Entry(f"{number}.", problem) for number, problem in enumerate(found, 1)]
    return Section("problems", entries) if entries else Section("no problems found")


def to_json(sections: Sequence[Section]) -> str:
    """Returns the sections as one JSON object, with their problems."""
    values = {
        section.title.partition(" ")[0]: {entry.name: entry.json_value for entry in section.entries}
        for section in sections
    }
    values["infomax"]["version"] = sections[0].title.partition(" ")[2]
    problems = [entry.text for entry in find_problems(sections).entries]
    return json.dumps({**values, "problems": problems}, indent=1)
