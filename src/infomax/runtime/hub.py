"""Keeps a command from waiting for Hugging Face's hub if there is no network.

The hub's libraries repeat each request five times, for a minute in all, and have no setting for that. They have one
for machines without a network, ``HF_HUB_OFFLINE``, which takes what is in the local cache. They read it when they are
imported.
"""

import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies

from infomax.runtime.doors import is_command
from infomax.runtime.text import note

OFFLINE = "HF_HUB_OFFLINE"
USERS_OWN = (OFFLINE, "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
"""Variables by which a user decides himself."""
PATIENCE = 4.0
"""Seconds until a host counts as out of reach."""
_unreachable: set[str] = set()


@contextmanager
def hub_or_cache(needed: bool = True) -> Generator[None]:
    """Lets the libraries that the block imports use the local cache alone, if a command cannot reach the hub.

    The user's own setting stays, and so do the settings of a program that calls infomax from Python.

    Args:
        needed: Whether anything may have to be fetched.
    """
    host = hub_host()
    decided = not needed or any(name in os.environ for name in USERS_OWN) or "huggingface_hub" in sys.modules
    if decided or not is_command() or getproxies() or is_reachable(*host):
        yield
        return
    _unreachable.add(host[0])
    note(f"{host[0]} cannot be reached; the local cache is used alone")
    os.environ[OFFLINE] = "1"
    try:
        yield
    finally:
        del os.environ[OFFLINE]


def why_not_fetched() -> str:
    """Returns why nothing can be fetched from the hub; empty if it could be reached."""
    host, _ = hub_host()
    return f"{host} cannot be reached, and the local cache does not have them" if host in _unreachable else ""


def hub_host() -> tuple[str, int]:
    """Returns the name of the hub's host and its port, as ``HF_ENDPOINT`` says."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return address.hostname or "", address.port or (80 if address.scheme == "http" else 443)


def is_reachable(host: str, port: int) -> bool:
    """Returns whether a connection to a host can be opened within some seconds."""
    connected = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except OSError:
            return
        connected.append(host)

    thread = Thread(target=connect, daemon=True)  # to look up a name may take longer than any limit on a connection
    thread.start()
    thread.join(PATIENCE)
    return bool(connected)
