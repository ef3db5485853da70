"""A real JupyterLab in a real Chromium, for measuring and for the browser tests."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from specviz import lab
from specviz.extras import needs

# Without these Chromium asks its maker's servers for updates, and in a container it dies of its small /dev/shm.
_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
]
# Chrome first: Ubuntu lets its sandbox work, and not every Chromium's.
_NAMES = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser")


class BrowserMissing(Exception):
    """No Chromium, and how to get one."""


def find_chromium(playwright: Any) -> str:
    """Path of a Chromium: the system's, else Playwright's own. Installs nothing; BrowserMissing says how to."""
    if os.environ.get("BROWSER_TESTS") == "no":
        raise BrowserMissing("BROWSER_TESTS=no: no browser is started.")
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    own = str(playwright.chromium.executable_path)
    if Path(own).exists():
        return own
    raise BrowserMissing(
        "There is no Chromium: install Debian's or Fedora's package `chromium`, or run `playwright install chromium`."
    )


def launch_options(executable: str) -> dict[str, Any]:
    """How Playwright starts it: in Chromium's sandbox, but for root, whom Chromium refuses one."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return {"executable_path": executable, "args": _FLAGS, "chromium_sandbox": not root}


@contextlib.contextmanager
def jupyterlab(root: Path = lab.ROOT) -> Iterator[tuple[str, str]]:
    """A JupyterLab with settings of its own, so that the user's are neither read nor changed: (address, token)."""
    # Any free port: two that start together would both find 8888 free.
    port, token = lab.free_port(0), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="specviz-lab-") as home:
        folders = ("CONFIG", "DATA", "RUNTIME")
        env = {**os.environ, **{f"JUPYTER_{name}_DIR": f"{home}/{name.lower()}" for name in folders}}
        env |= {f"JUPYTERLAB_{name}_DIR": f"{home}/lab-{name.lower()}" for name in ("SETTINGS", "WORKSPACES")}
        env |= {"IPYTHONDIR": f"{home}/ipython", "JUPYTER_TOKEN": token}
        env |= lab.settings(env)
        arguments = lab.command(port, "notebooks", root, browser=False)
        log = open(f"{home}/log", "w+")  # noqa: SIM115 - the child writes to it until the end
        server = subprocess.Popen(arguments, env=env, stdout=log, stderr=log)
        try:
            address = f"http://{lab.HOST}:{port}"
            _wait_until_up(server, f"{address}/api?token={token}", Path(home, "log"))
            yield address, token
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            log.close()


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with status {server.returncode}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def chromium(**context: Any) -> Iterator[Any]:
    """A fresh Chromium page; keyword arguments go to Playwright's `new_context` (viewport, color_scheme, ...)."""
    with needs("bench"):
        from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        options = launch_options(find_chromium(playwright))
        try:
            browser = playwright.chromium.launch(**options)
        except Error as error:
            if not options["chromium_sandbox"]:
                raise
            try:  # one that starts without a sandbox lacks nothing else
                playwright.chromium.launch(**options | {"chromium_sandbox": False}).close()
            except Error:
                raise error from None
            raise BrowserMissing(
                "This machine lets no ordinary user's program make a sandbox, which Chromium needs: allow user "
                "namespaces (sysctl kernel.unprivileged_userns_clone=1, or Chrome's AppArmor profile on Ubuntu)."
            ) from error
        try:
            yield browser.new_context(**({"viewport": {"width": 1500, "height": 1100}} | context)).new_page()
        finally:
            browser.close()


def open_notebook(page: Any, lab_address: tuple[str, str], notebook: str, timeout_s: float = 120) -> None:
    """Open a notebook, run all its cells, and wait until its kernel is idle."""
    address, token = lab_address
    page.goto(f"{address}/lab/tree/{notebook}?reset&token={token}")
    run_all_cells(page, timeout_s)


def run_all_cells(page: Any, timeout_s: float = 120) -> None:
    """Run all cells of the notebook on the page, as soon as its kernel is idle, and wait until they have run."""
    kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_function(kernel, timeout=timeout_s * 1000)
    page.evaluate(
        """() => {
          window.allRan = false;
          window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.allRan = true; });
        }"""
    )
    page.wait_for_function("window.allRan === true", timeout=timeout_s * 1000)


class BrowserRecord(TypedDict):
    browser: str
    system: str


def machine_of(page: Any) -> BrowserRecord:
    """Which browser measured."""
    return {"browser": page.context.browser.version, "system": platform.system()}


if __name__ == "__main__":  # .ci/browser asks whether there is one
    with needs("bench"):
        from playwright.sync_api import sync_playwright

    try:
        with sync_playwright() as started:
            print(find_chromium(started))
    except BrowserMissing as error:
        raise SystemExit(str(error)) from None
