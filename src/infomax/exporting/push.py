"""Uploads an export to the hub of Hugging Face, where the user is logged in."""

from pathlib import Path
from typing import Any

from infomax.exporting.output import CARD, card_beside
from infomax.runtime.failures import MachineError
from infomax.runtime.hub import hub_host, is_reachable
from infomax.runtime.text import note


def check_push(name: str) -> None:
    """Checks that a name is one of the hub, and that the user is logged in, before anything is computed.

    Args:
        name: The name after ``--push``, as ``me/mira-photos``.

    Raises:
        ValueError: if it is none, or nobody is logged in.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--push {name}: {' '.join(str(error).split())}") from error
    if get_token() is None:
        raise ValueError(f"--push {name}: nobody is logged in; hf auth login does it, or the variable HF_TOKEN")


def push(path: Path, name: str) -> str:
    """Uploads a folder, or a file with its model card; returns the address.

    A model that is not there yet is made private: whoever pushed it opens it to others.

    Raises:
        MachineError: if the hub cannot be reached or refuses; the export stays where it is.
    """
    from huggingface_hub import HfApi

    again = f"{path} stays where it is; hf upload {name} {path} does it later"
    if not is_reachable(*hub_host()):
        raise MachineError(f"--push {name}: {hub_host()[0]} cannot be reached; {again}")
    api = HfApi()
    try:
        is_new = not api.repo_exists(name)
        address: Any = api.create_repo(name, private=True, exist_ok=True)
        if is_new:
            note(f"{name} is new on the hub, and private until you change that there")
        _upload(api, path, name)
    except Exception as error:  # of many kinds: from the network, from the hub
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise MachineError(f"--push {name}: {reason}; {again}") from error
    return str(address)


def _upload(api: Any, path: Path, name: str) -> None:
    if path.is_dir():
        api.upload_folder(repo_id=name, folder_path=path, commit_message="Upload by infomax export")
        return
    for file, place in ((path, path.name), (card_beside(path), CARD)):
        api.upload_file(repo_id=name, path_or_fileobj=file, path_in_repo=place, commit_message=f"Upload {place}")
