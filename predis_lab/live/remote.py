"""The load process, as seen from the page's: started, told what to do, listened to, and noticed when it dies. For `session`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

END_S = 5.0  # that it may take to end by itself

Message = dict[str, Any]


class Remote:
    """One load process. take: gets its messages, from a thread of this object; the last one is {"kind": "end", "code"}.

    It ends with this process, however that ends: its input closes.
    """

    def __init__(self, backend: str, capacity: str, take: Callable[[Message], None]):
        command = [sys.executable, "-m", "predis_lab.live.worker"]
        self._process = subprocess.Popen(
            [*command, "--backend", backend, "--capacity", capacity],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the page's process, which then ends this one
        )
        self._take = take
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def send(self, command: Message) -> None:
        """Passes a command on; one that has ended takes none, and says so through `take`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(command) + "\n")

    def close(self) -> None:
        """Ends the process, by force where it does not listen."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._thread.join(END_S)

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(json.loads(line))
        self._take({"kind": "end", "code": self._process.wait()})
