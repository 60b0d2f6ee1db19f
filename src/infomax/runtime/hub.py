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
SWITCHED_ON = ("1", "ON", "YES", "TRUE")
UNREACHED = {
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectionError",
    "ConnectError",
    "TimeoutException",
    "TimeoutError",
    "Timeout",
    "URLError",
}
"""Errors of libraries that say that a server was not reached."""
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


def was_reachable() -> bool:
    """Returns whether the hub could be reached when it was last tried, and the user lets it be asked."""
    return _switch_of_user() is None and _seen.get(hub_host()[0], (True, 0.0))[0]


def _switch_of_user() -> str | None:
    """Returns the variable by which the user lets the hub not be asked; None if there is none."""
    return next((name for name in USERS_OWN if os.environ.get(name, "").upper() in SWITCHED_ON), None)


def is_unknown(error: BaseException) -> bool:
    """Returns whether an error says that the hub shows nothing of the name that was asked for."""
    return "RepositoryNotFoundError" in _kinds(error)


def is_unreached(error: BaseException) -> bool:
    """Returns whether an error says that a server was not reached, or was not to be."""
    kinds = _kinds(error)
    return "LocalEntryNotFoundError" in kinds or ("HTTPError" not in kinds and bool(kinds & UNREACHED))


def why_unreached() -> str:
    """Returns in one sentence why the hub gave nothing, when it was not reached."""
    switch = _switch_of_user()
    reason = f"{hub_host()[0]} cannot be reached" if switch is None else f"{switch} is set"
    return f"{reason}, and the local cache does not have it"


def _kinds(error: BaseException | None) -> set[str]:
    """Returns the names of the classes of an error and of those that it came of."""
    kinds: set[str] = set()
    while error is not None:
        kinds |= {kind.__name__ for kind in type(error).__mro__}
        error = error.__cause__ or error.__context__
    return kinds


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
