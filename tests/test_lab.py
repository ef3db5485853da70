"""Starting JupyterLab: this machine only, with a token, on a free port, or one clear sentence."""

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from specviz import lab


@pytest.fixture
def busy():
    with socket.socket() as held:
        held.bind((lab.HOST, 0))
        held.listen()
        yield held.getsockname()[1]


def test_the_first_free_port_is_taken(busy, monkeypatch):
    monkeypatch.setattr(lab, "FIRST_PORT", busy)
    assert busy < lab.free_port() < busy + lab.PORTS_TRIED


def test_a_port_asked_for_must_be_free(busy):
    with pytest.raises(lab.LabError, match=f"Port {busy} on 127.0.0.1 is in use or not allowed: choose another"):
        lab.free_port(busy)
    with pytest.raises(lab.LabError, match="Port 70000"):
        lab.free_port(70000)


def test_no_free_port_is_one_sentence(busy, monkeypatch):
    monkeypatch.setattr(lab, "FIRST_PORT", busy)
    monkeypatch.setattr(lab, "PORTS_TRIED", 1)
    with pytest.raises(lab.LabError, match=f"No port from {busy} to {busy} is free"):
        lab.free_port()


def test_it_listens_on_this_machine_only_and_hides_its_token():
    command = lab.command(8888, "notebooks/00_start_here.ipynb")
    assert "--ServerApp.ip=127.0.0.1" in command
    assert not any("token" in word.lower() or "password" in word.lower() for word in command)
    assert lab.address(8888, "abc", "n.ipynb") == "http://127.0.0.1:8888/lab/tree/n.ipynb?token=abc"


def test_a_missing_notebook_is_named():
    with pytest.raises(lab.LabError, match=r"There is no notebooks/nowhere\.ipynb in"):
        lab.start("notebooks/nowhere.ipynb")


def specviz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "specviz.cli", *arguments], capture_output=True, text=True, timeout=60)


def test_a_busy_port_ends_the_command_with_one_sentence_and_a_status(busy):
    done = specviz("lab", "--port", str(busy))
    assert done.returncode != 0
    assert done.stderr.strip() == (
        f"Port {busy} on 127.0.0.1 is in use or not allowed: choose another one with `make lab PORT=...`."
    )


def test_the_address_is_printed_and_the_server_asks_for_the_token():
    port = lab.free_port()
    arguments = [sys.executable, "-m", "specviz.cli", "lab", "--port", str(port), "--no-browser"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "open http" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/notebooks/00_start_here\.ipynb\?token=(\w{20,})", line)
        assert address, line
        status = f"http://127.0.0.1:{port}/api/status"
        with wait_for(f"{status}?token={address[1]}") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(status, timeout=5)
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5)
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def test_the_machine_is_told():
    done = specviz("machine")
    assert done.returncode == 0
    assert "torch" in done.stdout


def test_importing_the_package_does_not_load_torch():
    code = "import sys, specviz; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_unknown_attribute_is_named():
    import specviz

    with pytest.raises(AttributeError, match="module 'specviz' has no attribute 'spectral'; it has HalfSpectrum"):
        specviz.spectral  # noqa: B018
    assert {"HalfSpectrum", "widgets", "datasets"} <= set(dir(specviz))
