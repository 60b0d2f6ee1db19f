"""Says on which systems infomax can run: docs/reference/platforms.md."""

WINDOWS = (
    "infomax trains on Linux and macOS alone: it locks, saves and replaces files as these do; on Windows it runs in "
    "WSL 2 (wsl --install), with its GPU. The losses of infomax.methods and infomax.load work on Windows itself"
)
"""The line for whoever asks for anything else on Windows."""
ON_WINDOWS_TOO = ("Encoder", "load")
"""The public names that write no file."""
