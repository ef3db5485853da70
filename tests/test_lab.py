"""Starting JupyterLab: this machine only, with a token, on a free port, or one clear sentence."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

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


def test_it_listens_on_this_machine_only_and_hides_its_token(monkeypatch):
    monkeypatch.setenv("JUPYTER_TOKEN", "a-secret")
    command = lab.command(8888, "notebooks/00_start_here.ipynb")
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "a-secret" not in " ".join(command)
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


def test_the_address_is_printed_and_the_server_asks_for_the_token_whatever_the_settings(tmp_path):
    port = lab.free_port(0)
    arguments = [sys.executable, "-m", "specviz.cli", "lab", "--port", str(port), "--no-browser"]
    # The reader's own settings would open the server to everybody, without a token.
    (tmp_path / "jupyter_server_config.py").write_text('c.IdentityProvider.token = ""\nc.ServerApp.ip = "0.0.0.0"')
    env = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path)}
    env.pop("JUPYTER_TOKEN", None)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "open http" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/notebooks/00_start_here\.ipynb\?token=(\w{20,})", line)
        assert address, line
        status = f"http://127.0.0.1:{port}/api/status"
        with wait_for(f"{status}?token={address[1]}") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(status, timeout=60)
        if sys.platform == "linux":
            assert address[1] not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.terminate()
        process.wait(120)


OWN = [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "3"}]


@pytest.mark.parametrize("own", [{}, *OWN])
def test_the_lab_and_binder_say_how_threads_wait_unless_the_reader_does(own, monkeypatch):
    passed = []
    for name in ("OMP_WAIT_POLICY", "SPECVIZ_LAB_WAITING", *lab.WAITING):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: passed.append(environment))
    lab.start(port=0)
    added = {name: value for name, value in passed[0].items() if before.get(name) != value}
    for name in ("JUPYTER_TOKEN", "JUPYTER_CONFIG_PATH"):
        added.pop(name, None)
    assert added == ({} if own else {**lab.WAITING, "SPECVIZ_LAB_WAITING": "yes"})
    if sys.platform != "win32":
        printed = subprocess.run([lab.ROOT / "start", "env"], capture_output=True, text=True, check=True).stdout
        assert {line for line in printed.splitlines() if "=" in line} >= {
            f"{k}={v}" for k, v in {**added, **own}.items()
        }
        assert own == {} or "SPECVIZ_LAB_WAITING" not in printed


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("own", ["", "/somewhere"])
def test_the_lab_and_binder_have_the_same_defaults_below_the_readers(own, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", own)
    printed = subprocess.run([lab.ROOT / "start", "env"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("JUPYTER_CONFIG_PATH=")]
    assert line == f"JUPYTER_CONFIG_PATH={lab.settings({'JUPYTER_CONFIG_PATH': own})['JUPYTER_CONFIG_PATH']}"


@pytest.mark.parametrize("own", [{}, *OWN])
def test_a_bench_in_the_labs_terminal_waits_as_one_outside(own):
    outside = {name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", *lab.WAITING}}
    code = (
        "import os, sys; from specviz import cli; import specviz.bench.start as start; "
        "start.run = lambda *a, **k: print([os.environ.get(n) for n in "
        "('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')], 'torch' in sys.modules); cli.app(['bench', 'start'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=lab.environment({**outside, **own})
    )
    assert done.returncode == 0, done.stderr
    waiting = [own.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")]
    assert done.stdout.splitlines()[0] == f"{waiting} False"


def test_the_labs_own_settings_stand_below_the_readers_and_ask_no_question():
    assert lab.settings({}) == {"JUPYTER_CONFIG_PATH": str(lab.SETTINGS)}
    both = lab.settings({"JUPYTER_CONFIG_PATH": "/mine"})["JUPYTER_CONFIG_PATH"]
    assert both.split(os.pathsep) == ["/mine", str(lab.SETTINGS)]
    defaults = json.loads((lab.SETTINGS / "labconfig" / "default_setting_overrides.json").read_text())
    news = defaults["@jupyterlab/apputils-extension:notification"]
    assert news == {"fetchNews": "false", "checkForUpdates": False}


def wait_for(url: str, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(url, timeout=30)
        except OSError:  # not there yet, or slow
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


def test_a_busy_8888_gives_another_port():
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just given up is free
        try:
            held.bind((lab.HOST, 8888))
            held.listen()
        except OSError:
            pass  # some other program holds it: busy all the same
        port = lab.free_port()
        assert 8888 < port < 8888 + lab.PORTS_TRIED
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((lab.HOST, port))
            server.listen()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")])
def test_a_port_held_on_every_interface_is_busy(family, host):
    with socket.socket(family) as held:
        try:
            held.bind((host, 0))
        except OSError:
            pytest.skip(f"needs an interface with {family.name}")
        held.listen()
        with pytest.raises(lab.LabError, match="is in use"):
            lab.free_port(held.getsockname()[1])


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_number_that_is_no_port_is_one_sentence(port):
    with pytest.raises(lab.LabError, match=rf"^Port {port} [^.]*127\.0\.0\.1[^\n]*\.$"):
        lab.free_port(port)


class Became(Exception):
    """What the process would have become."""


@pytest.fixture
def become(monkeypatch):
    def execve(program, arguments, environment):
        raise Became(program, arguments, environment)

    monkeypatch.setattr(os, "execve", execve)

    def start(*arguments, **options):
        with pytest.raises(Became) as became:
            lab.start(*arguments, **options)
        return became.value.args

    return start


def printed_address(capsys) -> str:
    return re.search(r"http://\S+", capsys.readouterr().out)[0]


def test_port_0_is_refused_or_becomes_the_port_that_is_printed(become, capsys):
    try:
        _, arguments, _ = become(port=0)
    except lab.LabError:
        return
    port = urlsplit(printed_address(capsys)).port
    assert port
    assert f"--ServerApp.port={port}" in arguments


@pytest.mark.parametrize("given", [None, "", "chosen-by-the-reader"])
def test_the_token_is_in_the_environment_and_never_in_the_command(become, capsys, monkeypatch, given):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    if given is not None:
        monkeypatch.setenv("JUPYTER_TOKEN", given)
    program, arguments, environment = become()
    token = environment["JUPYTER_TOKEN"]
    assert token == given or (not given and len(token) >= 32)
    assert program == arguments[0] == sys.executable
    assert not any(token in word for word in arguments)
    assert printed_address(capsys).endswith(f"?token={token}")
    assert [word for word in arguments if "ip=" in word] == ["--ServerApp.ip=127.0.0.1"]


def test_every_start_has_a_new_token(become, monkeypatch):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    assert become()[2]["JUPYTER_TOKEN"] != become()[2]["JUPYTER_TOKEN"]


def test_no_browser_is_opened_when_none_is_wanted(become):
    assert "--no-browser" in become(browser=False)[1]
    assert "--no-browser" not in become(browser=True)[1]


@pytest.mark.parametrize("token", ["abc123", "a&b=c#d e%41"])
@pytest.mark.parametrize("notebook", ["notebooks/01.ipynb", "mine/my notes #1?.ipynb"])
def test_the_address_brings_the_notebook_and_the_token_back(token, notebook):
    parts = urlsplit(lab.address(8888, token, notebook))
    assert parts.netloc == "127.0.0.1:8888"
    assert unquote(parts.path) == f"/lab/tree/{notebook}"
    assert parse_qs(parts.query) == {"token": [token]}


def test_a_notebook_by_its_full_path_opens_at_the_same_address(become, capsys, monkeypatch):
    monkeypatch.setenv("JUPYTER_TOKEN", "t")
    notebook = "notebooks/00_start_here.ipynb"
    become(notebook, port=lab.free_port())
    become(str(lab.ROOT / notebook), port=lab.free_port())
    relative, full = (urlsplit(address) for address in re.findall(r"http://\S+", capsys.readouterr().out))
    assert full.path == relative.path


def test_a_notebook_outside_the_checkout_is_refused(tmp_path, become):
    outside = tmp_path / "outside.ipynb"
    outside.write_text("{}")
    with pytest.raises(lab.LabError, match=r"outside\.ipynb"):
        become(os.path.relpath(outside, lab.ROOT))


@pytest.mark.parametrize("notebook", ["notebooks", "", "notebooks/nowhere.ipynb"])
def test_what_is_no_file_is_refused_before_anything_starts(become, capsys, notebook):
    with pytest.raises(lab.LabError, match=f"There is no {notebook} in "):
        become(notebook)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [("--port", "70000"), ("--port", "-1"), ("notebooks/nowhere.ipynb",)],
    ids=["port too high", "port below zero", "no notebook"],
)
def test_a_wrong_command_ends_with_one_sentence(arguments):
    done = specviz("lab", "--no-browser", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"[A-Z][^\n]*\.?\n", done.stderr), done.stderr


def test_a_port_that_is_no_number_is_a_usage_error():
    done = specviz("lab", "--port", "eight")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Invalid value" in done.stderr


def test_neither_the_command_line_nor_a_look_around_loads_torch():
    code = "import sys, specviz, specviz.cli, specviz.lab; dir(specviz); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_every_public_name_is_there():
    import specviz

    assert all(getattr(specviz, name) is not None for name in specviz.__all__)
