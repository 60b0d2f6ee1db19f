"""Describes infomax, Python, the packages that infomax needs, and its extras."""

import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

from infomax.diagnosis.entries import Entry, Section
from infomax.runs.provenance import commit_of_source
from infomax.runtime.extras import EXTRAS, how_to_install

REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"""extra\s*==\s*['"]([a-z]+)['"]""")


def describe_infomax() -> Section:
    """Returns the version of infomax and how it was installed, of Python and of the system."""
    return Section(
        f"infomax {_version('infomax') or 'from source alone'}",
        [
            Entry("installed", _origin()),
            Entry("commit", commit_of_source() or "not known: it does not run from a checkout of git"),
            Entry("python", f"{platform.python_implementation()} {platform.python_version()}, {_environment()}"),
            Entry("system", _system()),
        ],
    )


def describe_packages() -> Section:
    """Returns the version of each package that infomax needs; a missing one is a problem."""
    needed = sorted(_requirements().get("", ["torch", "torchvision", "timm", "numpy"]))
    versions = {name: _version(name) for name in needed}
    missing = [name for name, installed in versions.items() if installed is None]
    entries = [Entry(name, installed) for name, installed in versions.items() if installed is not None]
    entries += [
        Entry(name, "missing", False, f"the package {name} is missing: install infomax again, with its dependencies")
        for name in missing
    ]
    return Section("packages", entries)


def describe_extras() -> Section:
    """Returns which extras are installed, and how to install the others."""
    requirements = _requirements()
    entries = []
    for extra, gives in EXTRAS.items():
        packages = {name: _version(name) for name in requirements.get(extra, [])}
        missing = [name for name, installed in packages.items() if installed is None]
        if packages and not missing:
            text = "yes: " + ", ".join(f"{name} {installed}" for name, installed in packages.items())
        else:
            text = f"no, for {gives}"
        entries.append(Entry(extra, text, {"installed": bool(packages) and not missing, "packages": packages}))
    if not all(entry.json_value["installed"] for entry in entries):
        entries.append(Entry("to add one", how_to_install("NAME")))
    return Section("extras", entries)


def _version(package: str) -> str | None:
    """Returns the version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _requirements() -> dict[str, list[str]]:
    """Returns the names of the packages that infomax needs by extra; those that it always needs under an empty name."""
    try:
        lines = distribution("infomax").requires or []
    except PackageNotFoundError:
        return {}
    by_extra: dict[str, list[str]] = {}
    for line in lines:
        name, extra = REQUIREMENT.match(line), EXTRA.search(line)
        is_elsewhere = "platform_machine" in line and sys.platform == "win32"
        if name and not is_elsewhere:
            by_extra.setdefault(extra[1] if extra else "", []).append(name[0])
    return by_extra


def _origin() -> str:
    """Returns how infomax was installed."""
    try:
        text = distribution("infomax").read_text("direct_url.json")
    except PackageNotFoundError:
        return "not at all: the source alone is on the path"
    if text is None:
        return "a wheel from a package index"
    origin = json.loads(text)
    if "dir_info" in origin:
        is_editable = origin["dir_info"].get("editable", False)
        return "from a clone, which it runs from" if is_editable else "from a folder, of which it is a copy"
    file = str(origin.get("url", "")).rpartition("/")[2]
    return f"from {file}" if file.endswith((".whl", ".gz")) else "from an address"


def _environment() -> str:
    """Returns which kind of environment Python runs in."""
    return "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"


def _system() -> str:
    """Returns the system and the processor's architecture, without the machine's name."""
    system, release, machine = platform.system(), platform.release(), platform.machine()
    libc = " ".join(part for part in platform.libc_ver() if part)
    return ", ".join(part for part in (f"{system} {release}", machine, libc) if part)
