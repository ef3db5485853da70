"""A sweep's scheduler, nannies and workers, attacked by whoever has not the sweep's certificate, another user too."""

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest
from distributed import protocol
from distributed.core import connect, send_recv
from distributed.protocol.pickle import dumps
from distributed.security import Security

from specviz.experiments.sweep import connected

HANDSHAKE = {"timeout": 30}  # seconds until a test that hangs ends


@pytest.fixture(scope="module")
def public() -> Iterator[Path]:
    """A folder for temporary files, where everybody may write as in /tmp and somebody has been before."""
    folder = Path(tempfile.mkdtemp(prefix="as-tmp-"))
    folder.chmod(0o1777)
    trap = folder / "dask-scratch-space"
    trap.mkdir()
    trap.chmod(0o777)
    (trap / "planted.py").write_text("raise SystemExit")
    if os.geteuid() == 0:
        shutil.chown(trap, "nobody")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sweeps(public: Path) -> Iterator[tuple[distributed.Client, set[int]]]:
    """A client of a sweep's cluster, and the ports at which it listens."""
    before = listening()
    with connected(workers=1) as client:
        client.wait_for_workers(1, timeout=60)
        yield client, listening() - before


def listening() -> set[int]:
    """Ports of this process and of all that it started; none of them is for another machine."""
    me = psutil.Process()
    found = set()
    for process in [me, *me.children(recursive=True)]:
        for each in process.net_connections("inet"):
            if each.status == psutil.CONN_LISTEN:
                assert each.laddr.ip == "127.0.0.1"
                found.add(each.laddr.port)
    return found


def addresses(client: distributed.Client) -> dict[str, str]:
    info = client.scheduler_info()
    ((worker, details),) = info["workers"].items()
    return {"scheduler": info["address"], "worker": worker, "nanny": details["nanny"]}


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def attack(address: str, arguments: dict[str, Any], run: str, path: Path) -> None:
    """Ask what listens there to run a function, which leaves a file."""

    async def talk() -> None:
        comm = await connect(address, **HANDSHAKE, **arguments)
        try:
            request = {"op": run, "function": dumps(path.touch), "args": dumps(()), "kwargs": dumps({}), "wait": True}
            await send_recv(comm, **request)
        finally:
            comm.abort()

    asyncio.run(talk())


def without_a_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


PLACES = {"scheduler": "run_function", "worker": "run", "nanny": "run"}  # and what runs code there


@pytest.mark.parametrize("place", PLACES)
def test_who_has_not_the_certificate_runs_no_code(sweeps, tmp_path, place):
    client, _ = sweeps
    address, run = addresses(client)[place], PLACES[place]
    assert address.startswith("tls://127.0.0.1:")
    attack(address, client.security.get_connection_args("client"), run, tmp_path / "by-the-owner")
    assert (tmp_path / "by-the-owner").exists()  # so it is an attack where nothing stands in its way
    attackers: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": (address.replace("tls://", "tcp://"), {}),
        "no certificate": (address, {"ssl_context": without_a_certificate()}),
        "another certificate": (address, Security.temporary().get_connection_args("client")),
    }
    for name, (where, arguments) in attackers.items():
        with pytest.raises(OSError, match=r"(?i)closed|handshake|certificate|reset|alert|eof"):
            attack(where, arguments, run, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["by-the-owner"]
    assert client.submit(lambda: 1 + 1).result(timeout=60) == 2  # nor did any of it do harm


def answer(at: int) -> bytes:
    """What comes back to a request for a page that says nothing of TLS."""
    with socket.create_connection(("127.0.0.1", at), timeout=30) as plain:
        plain.sendall(b"GET /json/counts.json HTTP/1.0\r\n\r\n")
        try:
            return plain.recv(1000)
        except ConnectionResetError:
            return b""


def test_all_that_listens_speaks_tls_or_has_nothing_to_say(sweeps):
    client, ports = sweeps
    with_tls = {port(address) for address in addresses(client).values()}
    assert with_tls < ports
    for at in with_tls:
        assert not answer(at).startswith(b"HTTP")
    for at in ports - with_tls:  # Dask's status pages, which have no pages
        assert answer(at).startswith(b"HTTP/1.1 404"), at


def test_nothing_is_imported_from_where_another_user_can_write(sweeps, public):
    client, _ = sweeps
    paths = [*sys.path, *(path for paths in client.run(lambda: sys.path).values() for path in paths)]
    scratch = {Path(path) for path in paths if public in Path(path).parents}
    assert len(scratch) > 1  # Dask does look there
    for path in scratch:
        folder = public / path.relative_to(public).parts[0]
        assert folder.stat().st_uid == os.geteuid()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    planted = client.run(lambda: importlib.util.find_spec("planted"))
    assert [*planted.values(), importlib.util.find_spec("planted")] == [None, None]


# --- another user: a process of `nobody`, which has the standard library alone

STRANGER = """
import json, os, socket, ssl, sys, tempfile

def send(port, tls, certificate, request):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if certificate:
                with tempfile.NamedTemporaryFile("w") as file:
                    file.write(certificate)
                    file.flush()
                    context.load_cert_chain(file.name)
            connection = context.wrap_socket(connection)
        connection.sendall(bytes.fromhex(request))
        while part := connection.recv(65536):
            yield part

def answer(attack):
    parts = []
    try:
        parts.extend(send(**attack))
    except OSError as error:
        return b"".join(parts).hex(), str(error)
    return b"".join(parts).hex(), ""

def opens(path):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
    except OSError:
        return False
    return True

def below(folder):
    for path, folders, files in os.walk(folder):
        yield from (os.path.join(path, name) for name in folders + files)

task = json.load(sys.stdin)
seen = {"user": os.getuid()}
seen["answers"] = [answer(attack) for attack in task.get("attacks", [])]
seen["opened"] = [path for folder in task.get("folders", []) for path in below(folder) if opens(path)]
seen["opened"] += [path for path in task.get("files", []) if opens(path)]
seen["texts"] = [open(path).read() for path in task.get("texts", [])]
json.dump(seen, sys.stdout)
"""


@cache
def strangers_python() -> str:
    """A Python that `nobody` can run; skips where there is none, or where no process of theirs can be started."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("needs root, to start a process of another user")
    for program in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")):
        try:
            if program and not subprocess.run([program, "-I", "-c", "import ssl"], **AS_NOBODY).returncode:
                return program
        except (OSError, LookupError, subprocess.SubprocessError):  # not theirs to run; no such user
            continue
    pytest.skip("needs a user `nobody`, and a Python that they can run")


AS_NOBODY: dict[str, Any] = {"user": "nobody", "group": 65534, "extra_groups": [], "cwd": "/", "timeout": 120}


def as_stranger(task: dict[str, Any], as_whom: dict[str, Any] = AS_NOBODY) -> dict[str, Any]:
    """What a process of another user saw, which did what is asked."""
    run = subprocess.run(
        [strangers_python(), "-I", "-c", STRANGER], input=json.dumps(task), text=True, capture_output=True, **as_whom
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def framed(*messages: dict[str, Any]) -> bytes:
    """Messages as Dask sends them: bytes that follow, number of frames, their lengths, frames."""
    sent = b""
    for message in messages:
        frames = [bytes(frame) for frame in protocol.dumps(message)]
        rest = struct.pack(f"<{len(frames) + 1}Q", len(frames), *map(len, frames)) + b"".join(frames)
        sent += struct.pack("<Q", len(rest)) + rest
    return sent


def run_request(run: str, path: Path) -> bytes:
    """The bytes that have what listens run a function, which leaves a file."""
    greeting = {"compression": None, "python": tuple(sys.version_info)[:3], "pickle-protocol": 5}
    request = {"op": run, "function": dumps(path.touch), "args": dumps(()), "kwargs": dumps({}), "wait": True}
    return framed(greeting, request | {"reply": True, "close": True})


def pem(security: Security) -> str:
    return f"{security.tls_client_key}\n{security.tls_client_cert}"


@pytest.mark.parametrize("place", PLACES)
def test_another_user_runs_no_code(sweeps, tmp_path, place):
    client, _ = sweeps
    at, run = port(addresses(client)[place]), PLACES[place]

    def attack(name: str, tls: bool, certificate: str | None = None) -> dict[str, Any]:
        request = run_request(run, tmp_path / name).hex()
        return {"port": at, "tls": tls, "certificate": certificate, "request": request}

    # With the sweep's own certificate, and as its owner, the same bytes are an attack.
    owner = as_stranger({"attacks": [attack("key", True, pem(client.security))]}, {"timeout": 120})
    ((answered, error),) = owner["answers"]
    assert (b"OK" in bytes.fromhex(answered), error) == (True, "")
    assert (tmp_path / "key").exists()
    attacks = [attack("plain", False), attack("none", True), attack("another", True, pem(Security.temporary()))]
    seen = as_stranger({"attacks": attacks})
    assert seen["user"] not in (0, os.getuid())
    for answered, error in seen["answers"]:
        assert error or bytes.fromhex(answered)[:1] in (b"", b"\x15")  # nothing, or TLS's own alert
        assert b"OK" not in bytes.fromhex(answered)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_another_user_reads_no_file_and_no_memory_of_a_sweep(sweeps, public):
    client, _ = sweeps
    client.submit(lambda: Path(tempfile.mkdtemp(), "of-a-trial").touch()).result(timeout=60)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert len(processes) > 1
    private = [f"/proc/{each.pid}/{name}" for each in processes for name in ("environ", "mem", "maps", "fd")]
    texts = [f"/proc/{each.pid}/cmdline" for each in processes]
    left_open = public / "left-open"
    left_open.write_text("")
    left_open.chmod(0o644)
    seen = as_stranger({"folders": [str(public)], "files": private, "texts": texts})
    trap = public / "dask-scratch-space"
    assert {Path(path) for path in seen["opened"]} == {left_open, trap, trap / "planted.py"}
    assert all(path.exists() for path in (left_open, *(Path(text) for text in private)))
    assert not any("PRIVATE KEY" in text for text in seen["texts"])
