"""Defines the command ``infomax watch``, which shows runs while they train."""

import shlex
import socket
import sys

from infomax.cli.command import Command
from infomax.reporting.watch.options import WatchOptions
from infomax.runtime.text import show


def watch(options: WatchOptions) -> None:
    """Carries out ``infomax watch``; what it shows and how it ends depends on where the output goes."""
    from infomax.reporting.watch.follow import follow, show_once
    from infomax.reporting.watch.runs import WatchedRuns

    is_ascii = options.ascii or "utf" not in (sys.stdout.encoding or "").lower()
    if options.serve:
        _serve(options)
    elif options.once:
        show_once(WatchedRuns(options.runs), is_ascii=is_ascii)
    else:
        follow(WatchedRuns(options.runs), every=options.every, is_ascii=is_ascii)


def _serve(options: WatchOptions) -> None:
    """Serves the page until Ctrl-C."""
    from infomax.reporting.watch.follow import interruption
    from infomax.reporting.watch.runs import WatchedRuns
    from infomax.reporting.watch.server import Server

    names = " ".join(shlex.quote(str(folder)) for folder in options.runs)
    with Server(WatchedRuns(options.runs), options.port) as server:
        show(f"http://127.0.0.1:{server.port}/ shows {names} until Ctrl-C, on this machine alone")
        tunnel = f"ssh -L {server.port}:127.0.0.1:{server.port} {socket.gethostname()}"
        show(f"from another machine: {tunnel}, and the same address there")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # Threads of the page may be reading the server's runs at this time.
            raise interruption(WatchedRuns(options.runs)) from None


WATCH = Command(
    "watch",
    WatchOptions,
    "Show runs while they train: how far they are, curves, and verdicts; in the terminal, or as a page.",
    watch,
)
