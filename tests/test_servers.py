"""The servers that figures are compared with: real, private to this machine, and gone when we are."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import redis

from predis_lab.bench import servers

pytestmark = pytest.mark.redis

STARTERS = [servers.redis_server, servers.valkey_server]


@pytest.mark.parametrize("start", STARTERS)
def test_a_server_answers_on_both_transports_and_keeps_nothing(start):
    with start() as server:
        for transport in ("unix", "tcp"):
            client = server.client(transport)
            client.set("a", transport)
            assert client.get("a") == transport.encode()
            client.close()
        facts = server.describe()
        assert facts["version"][0].isdigit() and facts["allocator"]
        assert facts["configuration"]["save"] == "" and facts["configuration"]["appendonly"] == "no"
        assert facts["configuration"]["bind"] == "127.0.0.1"
        assert server.memory_nbytes() > 0 and server.ours
        directory = os.path.dirname(server.unix_socket)
        assert os.stat(directory).st_mode & 0o077 == 0
    assert not os.path.exists(directory)
    with pytest.raises(redis.ConnectionError):
        server.client("tcp").ping()


def test_two_servers_are_two():
    with servers.redis_server() as one, servers.redis_server() as two:
        one.client().set("a", 1)
        assert two.client().get("a") is None


def test_a_server_given_by_url_is_left_alone(monkeypatch):
    with servers.redis_server() as ours:
        ours.client().set("kept", "yes")
        monkeypatch.setenv("PREDIS_REDIS_URL", f"redis://127.0.0.1:{ours.port}/0")
        with servers.redis_server() as theirs:
            assert not theirs.ours and theirs.source == "url" and theirs.transports == ("tcp",)
            assert theirs.client().get("kept") == b"yes"
        assert ours.client().get("kept") == b"yes"


def test_a_url_where_nothing_answers():
    with (
        pytest.raises(servers.ServerError, match="no redis answers"),
        servers.redis_server("redis://127.0.0.1:1"),
    ):
        pass


def test_the_path_comes_before_the_wheel(tmp_path, monkeypatch):
    binary, _ = servers.find_binary("redis")
    shim = tmp_path / "redis-server"
    shim.write_text(f'#!/bin/sh\nexec "{binary}" "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with servers.redis_server() as server:
        assert server.source == f"path {shim}"
        assert server.client().ping()


def test_a_server_that_does_not_start_says_why(tmp_path, monkeypatch):
    shim = tmp_path / "redis-server"
    shim.write_text("#!/bin/sh\necho 'Fatal: out of luck'\nexit 3\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(servers.ServerError, match="out of luck"), servers.redis_server():
        pass


def test_a_killed_parent_leaves_nothing_behind():
    code = (
        "import os, signal, sys\n"
        "from predis_lab.bench import servers\n"
        "with servers.redis_server() as server:\n"
        "    print(server.client().info()['process_id'], server.unix_socket, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    process, unix_socket = ended.stdout.split()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(process)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(int(process))
    while os.path.exists(unix_socket) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(unix_socket)
