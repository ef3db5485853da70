"""What leaves the machine while a reader works in the lab: nothing. And how a plot's toolbar is cut down to that."""

import ast
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pages
import pytest
from test_lab import wait_for

from specviz import lab
from specviz.bench import browser

pytestmark = pytest.mark.browser

# Python runs this before anything else of the server and of its kernels.
WATCH = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        wanted = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        wanted = arguments[:1]
    else:
        return
    with open(os.environ["SPECVIZ_WATCH"], "a") as out:
        out.write(repr(wanted) + "\\n")

sys.addaudithook(note)
"""
OWN = {"127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "", None}


def hosts(watched: str) -> set[str]:
    """Where the server and its kernels wanted to, but for the files that are sockets."""
    wanted = {ast.literal_eval(line) for line in watched.splitlines()}
    return {str(address[0]) for address in wanted if isinstance(address, tuple) and address[0] not in OWN}


def test_the_watch_sees_what_goes_to_another_host(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SPECVIZ_WATCH": str(tmp_path / "watched")}
    code = "import urllib.request as u\ntry: u.urlopen('http://nobody.invalid/')\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", code], env={**env, "no_proxy": "*"}, check=True)
    assert hosts((tmp_path / "watched").read_text()) == {"nobody.invalid"}


def test_the_lab_and_its_page_ask_nobody_for_anything_even_of_a_reader_who_once_said_yes(tmp_path):
    pages.close()  # one browser at a time
    home = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    home |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / f"lab-{name}") for name in ("SETTINGS", "WORKSPACES")}
    settings = tmp_path / "lab-SETTINGS" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    yes = {"fetchNews": "true", "checkForUpdates": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(yes))
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, **home, "PYTHONPATH": path, "SPECVIZ_WATCH": str(tmp_path / "watched")}
    env |= {"JUPYTER_TOKEN": "t" * 32, "IPYTHONDIR": str(tmp_path / "ipython")}
    port = lab.free_port(0)
    command = [sys.executable, "-m", "specviz.cli", "lab", "--port", str(port), "--no-browser"]
    requests, failed = [], []
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api/status?token={'t' * 32}").close()
        with browser.chromium() as page:
            page.set_default_timeout(1000 * pages.PATIENCE)
            page.context.on("request", lambda request: requests.append(request.url))
            page.goto(f"{address}/lab/tree/notebooks/00_start_here.ipynb?token={'t' * 32}")
            kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
            page.wait_for_function(kernel)
            # The panel that lists extensions of the package index.
            page.evaluate("window.jupyterapp.commands.execute('extensionmanager:toggle').catch(() => null)")
        # What the page would ask the server to fetch; each answer comes after the server has asked.
        for path in ("api/news", "api/update", "api/extensions?query=widgets&page=1&per_page=30&refresh=1"):
            ask = urllib.request.Request(f"{address}/lab/{path}", headers={"Authorization": f"token {'t' * 32}"})
            try:
                urllib.request.urlopen(ask, timeout=pages.PATIENCE).close()
            except urllib.error.HTTPError as error:
                failed.append(f"{path}: {error}")
    finally:
        server.terminate()
        server.wait(pages.PATIENCE)
    assert len(requests) > 20
    abroad = [url for url in requests if not re.match(rf"(https?|ws)://127\.0\.0\.1:{port}/|data:|blob:", url)]
    assert abroad == []
    assert hosts((tmp_path / "watched").read_text()) == set()
    assert failed == []
