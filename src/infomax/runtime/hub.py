"""Keeps infomax from waiting for Hugging Face's hub if there is no network.

The hub's libraries repeat each request five times, for a minute in all, and have no setting for that. They have one
for machines without a network, ``HF_HUB_OFFLINE``, which takes what is in the local cache. They read it when they are
imported.
"""

import math
import os
import socket
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib import import_module
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
VALID = 60.0
"""Seconds for which a host that was tried counts as it was then."""
SWITCHES = ("huggingface_hub.constants", "datasets.config")
"""Modules that hold what ``HF_HUB_OFFLINE`` was when they were imported, in an attribute of this name."""
_seen: dict[str, tuple[bool, float]] = {}  # by host: whether it was reached, and when


@contextmanager
def hub_or_cache(needed: bool = True) -> Generator[None]:
    """Lets the hub's libraries use the local cache alone while the block runs, if the hub cannot be reached.

    The user's own setting stays. In a command, what the block imports stays so to the end. In a program that calls
    infomax from Python, all is as before after the block, which has to fetch too, and not to import alone.

    Args:
        needed: Whether anything may have to be fetched.
    """
    host = hub_host()
    decided = not needed or any(name in os.environ for name in USERS_OWN)
    if decided or getproxies() or _is_reachable_now(*host):
        yield
        return
    if is_command():
        os.environ[OFFLINE] = "1"
        for name in SWITCHES:
            _switch(name, value=True)
        try:
            yield
        finally:
            del os.environ[OFFLINE]
        return
    with suppress(ImportError):
        import_module(SWITCHES[0])
    was_offline = {name: _switch(name, value=True) for name in SWITCHES}
    try:
        yield
    finally:
        for name, value in was_offline.items():  # what the block imported has copied the value
            _switch(name, value=value or False)


def _switch(module: str, *, value: bool) -> bool | None:
    """Sets whether a library is offline; returns what it was before, or None if it is not imported."""
    if module not in sys.modules:
        return None
    before = bool(getattr(sys.modules[module], OFFLINE, False))
    setattr(sys.modules[module], OFFLINE, value)
    return before


def _is_reachable_now(host: str, port: int) -> bool:
    """Returns whether the hub can be reached, and says so if not; what was seen less than a minute ago still holds."""
    reachable, seen_at = _seen.get(host, (True, -math.inf))
    if time.monotonic() - seen_at < VALID:
        return reachable
    reachable = is_reachable(host, port)
    _seen[host] = reachable, time.monotonic()
    if not reachable:
        note(f"{host} cannot be reached; the local cache is used alone")
    return reachable


def why_not_fetched() -> str:
    """Returns why nothing can be fetched from the hub; empty if it could be reached."""
    host, _ = hub_host()
    was_reachable, _ = _seen.get(host, (True, 0.0))
    return "" if was_reachable else f"{host} cannot be reached, and the local cache does not have them"


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
