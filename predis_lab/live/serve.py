"""Serves notebook 10 as an application, on loopback only. Called by `cli`."""

from __future__ import annotations

import logging
import os
import sys

import panel as pn
from tornado.websocket import WebSocketClosedError

from ..bench.results import ROOT
from . import shared
from .page import TITLE

NOTEBOOK = ROOT / "notebooks" / "10_live_dashboard.ipynb"
ADDRESS = "127.0.0.1"
PORT = 5010


def serve(port: int = PORT, replay: str = "", capacity: str = shared.CAPACITY) -> int:
    """Serves until it is interrupted; the exit code.

    port:    to listen on
    replay:  folder of a recording to show instead of load

    Raises TapeError where that folder holds no recording, OSError where the port is taken.
    """
    if not NOTEBOOK.exists():
        raise FileNotFoundError(f"{NOTEBOOK} is not there: the dashboard is served from a checkout")
    session = shared.session(capacity, replay=replay)
    session.start()
    logging.getLogger("asyncio").addFilter(_no_viewer_s_leaving)
    # The page waits for the load, not the other way round. Threads that run already keep their place, and with them the load
    # processes that they start.
    os.nice(10)
    try:
        server = pn.serve(
            {"dashboard": str(NOTEBOOK)},
            port=port,
            address=ADDRESS,
            start=False,
            show=False,
            websocket_origin=[f"{host}:{port}" for host in ("localhost", ADDRESS)],
            title=TITLE,
            verbose=False,
        )
        url = f"http://localhost:{port}/dashboard"
        print(f"Predis Lab, live: {url}  (Ctrl-C ends it)", flush=True)
        if sys.stdout.isatty():
            server.show("/dashboard")
        server.run_until_shutdown()
    except KeyboardInterrupt:
        pass
    finally:
        session.close()
    return 0


def _no_viewer_s_leaving(record: logging.LogRecord) -> bool:
    """Whether a record is worth a line: a viewer who closes the page while it is written to is none."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, WebSocketClosedError)
