"""Checks the files that commands are to write, before anything is computed. No torch is imported."""

from collections.abc import Sequence
from pathlib import Path

from infomax.runtime.checks import choose
from infomax.runtime.near_names import missing_path


def check_output_file(file: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Checks that a file can be written.

    Args:
        file: The file that ``--out`` names.
        suffixes: Suffixes that it may have.
        overwrite: Whether it may exist.

    Raises:
        ValueError: if it has another suffix, it exists, or its folder does not.
    """
    if file.is_dir() and file.suffix not in suffixes:
        raise ValueError(f"--out {file} is a folder; want a file, as {file / f'NAME{suffixes[0]}'}")
    choose("the suffix of --out", file.suffix, suffixes)
    if file.exists() and not (overwrite and file.is_file()):
        cure = "name another file" + ("" if file.is_dir() else ", or give --overwrite")
        raise ValueError(f"--out {file} exists; {cure}")
    if not file.parent.is_dir():
        raise ValueError(f"--out {file}: {missing_path(file.parent)}; name a folder that is there")
