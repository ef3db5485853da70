"""Start JupyterLab on the course: on 127.0.0.1 only, always with a token."""

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from specviz.extras import needs

HOST = "127.0.0.1"
FIRST_PORT = 8888
PORTS_TRIED = 50
ROOT = Path(__file__).resolve().parent.parent  # the checkout

# How long OpenMP's threads look for more work before they sleep: GNU's in rounds of a loop, LLVM's and Intel's in
# milliseconds. Read when the library is loaded. The defaults are 300,000 and 200; on a busy machine they take the core
# that another thread of the same kernel waits for. Measured in November 2026 on two cores, time over the default's,
# idle and beside two busy processes: a SpecNet block 1.2 and 0.08, a convolution's step 1.3 and 0.07, notebook 07's
# race 1.1 and under 0.15 (the default was ended after 35 s). Sleeping at once took 1.25, 1.35 and 1.5 idle; 10,000
# rounds took no longer than the default idle, and twice as long as 1,000 for the race when busy. With Intel's library
# 0 ms took 1.06, 1.26 and 1.28 idle, and ended the race in 6 s when busy, where the default was ended too.
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
_SET_HERE = "SPECVIZ_LAB_WAITING"  # tells a bench in the lab's terminal that these are not the reader's own

# JupyterLab asks the package index for its newest version, and the index's list of extensions, and its makers' page for
# news, whatever the reader has answered to its question. The lab asks nobody for anything: these are arguments, so that
# no setting of the reader's own Jupyter brings the calls back. Nor is the question raised: see SETTINGS.
QUIET = (
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)

# Defaults of the lab's own, below all that the reader has set: no question about news, and pages exported as HTML have
# alternative texts.
SETTINGS = Path(__file__).resolve().parent / "jupyter"

# The token is an argument, so that no setting of the reader's own Jupyter can switch it off, but one that is
# added inside the process: everybody on the machine can read a command line.
_LAUNCH = (
    "import os, sys; from jupyterlab.labapp import main; "
    "sys.exit(main([*sys.argv[1:], '--IdentityProvider.token=' + os.environ['JUPYTER_TOKEN']]))"
)


class LabError(Exception):
    """JupyterLab cannot start; the text says why, in one sentence."""


def free_port(port: int | None = None) -> int:
    """The port asked for, or else the first free one from 8888 on; LabError if there is none."""
    candidates = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else [port]
    for candidate in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])  # port 0 asks the system for any
    if port is None:
        raise LabError(
            f"No port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} is free on {HOST}: close another Jupyter, "
            "or choose a port with `make lab PORT=9999`."
        )
    raise LabError(f"Port {port} on {HOST} is in use or not allowed: choose another one with `make lab PORT=...`.")


def command(port: int, notebook: str, root: Path = ROOT, browser: bool = True) -> list[str]:
    """The command line of JupyterLab; its token comes from the environment, where `ps` does not show it."""
    return [
        *[sys.executable, "-c", _LAUNCH],
        f"--ServerApp.ip={HOST}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{quote(notebook)}",
        # A panel that lost its kernel runs its cell again by JupyterLab's commands.
        "--LabApp.expose_app_in_browser=True",
        *QUIET,
        *([] if browser else ["--no-browser"]),
        # In a container one is often root; it still listens on this machine only, with a token.
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]


def address(port: int, token: str, notebook: str) -> str:
    """What to open in the browser."""
    return f"http://{HOST}:{port}/lab/tree/{quote(notebook)}?token={quote(token, safe='')}"


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """The reader's own environment, with WAITING added unless it already sets how OpenMP's threads wait."""
    if {"OMP_WAIT_POLICY", *WAITING} & own.keys():
        return dict(own)
    return {**own, **WAITING, _SET_HERE: "yes"}


def settings(own: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that make Jupyter take SETTINGS as defaults, after the reader's own settings."""
    folders = [own["JUPYTER_CONFIG_PATH"]] if own.get("JUPYTER_CONFIG_PATH") else []
    return {"JUPYTER_CONFIG_PATH": os.pathsep.join([*folders, str(SETTINGS)])}


def wait_as_usual() -> None:
    """Remove WAITING if the lab set it, so that in measurements threads wait as they usually do."""
    if os.environ.pop(_SET_HERE, None):
        for name in WAITING:
            os.environ.pop(name, None)


def start(notebook: str = "notebooks/00_start_here.ipynb", port: int | None = None, browser: bool = True) -> NoReturn:
    """Replace this process by JupyterLab, so that signals reach it.

    Raises LabError if it cannot start, MissingExtra if it is not installed.
    """
    with needs("lab"):
        version("jupyterlab")  # it is imported by the process that becomes it
    path = (ROOT / notebook).resolve()
    if not path.is_relative_to(ROOT):
        raise LabError(f"{notebook} is outside {ROOT}, and JupyterLab shows files in there only.")
    if not path.is_file():
        raise LabError(
            f"There is no {notebook} in {ROOT}: the notebooks are in the source checkout, not in the installed package."
        )
    notebook = path.relative_to(ROOT).as_posix()
    port = free_port(port)
    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)
    print(f"\n  Spectral Workbench: open {address(port, token, notebook)}\n  Ctrl-C stops it.\n", flush=True)
    arguments = command(port, notebook, browser=browser)
    os.execve(arguments[0], arguments, {**environment(os.environ), **settings(os.environ), "JUPYTER_TOKEN": token})
