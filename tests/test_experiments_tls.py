"""A sweep's scheduler, nannies and workers, attacked by whoever has not the sweep's certificate."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest
from distributed.core import connect, send_recv
from distributed.protocol.pickle import dumps
from distributed.security import Security

from specviz.experiments.sweep import connected

HANDSHAKE = {"timeout": 30}  # seconds until a test that hangs ends


@pytest.fixture(scope="module")
def sweeps() -> Iterator[tuple[distributed.Client, set[int]]]:
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
    ((worker, told),) = info["workers"].items()
    return {"scheduler": info["address"], "worker": worker, "nanny": told["nanny"]}


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
