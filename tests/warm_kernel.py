"""Jupyter kernels that are forked from one process, which has imported what the course's notebooks import.

The imports are most of a kernel's start: 9 s of the processor, for each page and each grade. What is forked is a
kernel like any other: a process of its own, with its own environment, folder, output and signals. JupyterLab and
nbclient find it by its name, NAME, in a folder that JUPYTER_PATH names; elsewhere than on Linux, where libraries that
were imported may not survive a fork, that name is an ordinary kernel's.
"""

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = "specviz-warm"
SPEC = {"name": NAME, "display_name": "Python 3, forked", "language": "python"}  # a notebook's, that asks for one
IMPORTED = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "matplotlib_inline.backend_inline",
    "plotly.graph_objects",
    "specviz.exercises",
    "specviz.experiments",
    "specviz.widgets",
)


@contextlib.contextmanager
def kernels(name: str = NAME) -> Iterator[Callable[[], object]]:
    """While this is open, this process and those it starts find the kernel. Imports begin now: what is yielded waits.

    name  "python3" is the one that is there without this, and stands back
    """
    with tempfile.TemporaryDirectory(prefix="specviz-warm-") as folder, contextlib.ExitStack() as stack:
        spec = Path(folder, "kernels", name)
        spec.mkdir(parents=True)
        at = f"{folder}/socket"
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        imported: Callable[[], object] = list
        if sys.platform == "linux":
            argv = [sys.executable, "-I", __file__, "kernel", at, "{connection_file}"]
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(at)  # here, so that a kernel that is asked for at once finds it
            listening.listen()
            command = [sys.executable, __file__, "serve", str(listening.fileno())]
            server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listening.fileno()]
            )
            stack.callback(server.wait)
            stack.callback(server.terminate)  # in the middle of its imports; later it ignores this
            stack.enter_context(server.stdin)  # its end is the server's, however this process ends
            imported = stack.enter_context(server.stdout).readline
            listening.close()
        (spec / "kernel.json").write_text(json.dumps({**SPEC, "name": name, "argv": argv}))
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield imported
        finally:
            os.environ.pop("JUPYTER_PATH")
            if before:
                os.environ["JUPYTER_PATH"] = before


def stand_in(at: str, connection_file: str) -> int:
    """The process that Jupyter knows as the kernel: it passes signals on, and ends as the kernel ends."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(at)
        asked = {"file": connection_file, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(server, [b"?"], [0, 1, 2])
        server.sendall(json.dumps(asked).encode() + b"\n")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: server.sendall(bytes([number])))
        status = int(server.makefile().readline() or 1)
    if status < 0:
        if -status in (signal.SIGINT, signal.SIGTERM):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def serve(listening: socket.socket) -> tuple[dict, list[int]] | None:
    """Fork a kernel for each that asks. In the kernel: what was asked for, and its files; in the server: None."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel does, but before
    for name in IMPORTED:
        __import__(name)
    gc.collect()
    gc.freeze()
    print("imported", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for those who asked, and stdin says when to end
        signal.signal(number, signal.SIG_IGN)
    ended, wake = socket.socketpair()
    for end in (ended, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    for source in (sys.stdin, listening, ended):
        selector.register(source, selectors.EVENT_READ)
    running: dict[int, socket.socket] = {}  # a kernel's process, and who asked for it

    while True:
        for source in [key.fileobj for key, _ in selector.select()]:
            if source is sys.stdin:
                for process in running:
                    stop(process, signal.SIGKILL)
                return None
            if source is listening:
                asker, _ = listening.accept()
                _, files, _, _ = socket.recv_fds(asker, 1, 3)
                with asker.makefile() as text:
                    asked = json.loads(text.readline())
                if not (process := os.fork()):
                    signal.set_wakeup_fd(-1)
                    for other in (selector, listening, ended, wake, asker, *running.values()):
                        other.close()
                    for number in (signal.SIGCHLD, signal.SIGTERM):
                        signal.signal(number, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    return asked, files
                for file in files:
                    os.close(file)
                running[process] = asker
                selector.register(asker, selectors.EVENT_READ)
            elif source is ended:
                ended.recv(4096)
                for asker in answered(running):
                    with contextlib.suppress(KeyError):
                        selector.unregister(asker)
                    asker.close()
            elif process := next((process for process, asker in running.items() if asker is source), None):
                numbers = b""
                with contextlib.suppress(ConnectionResetError):
                    numbers = source.recv(16)
                for number in numbers or [signal.SIGKILL]:  # nothing: it was killed
                    stop(process, number)
                if not numbers:
                    selector.unregister(source)


def stop(process: int, number: int) -> None:
    """Send a signal to a kernel and what it has started."""
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            return send(process, number)


def answered(running: dict[int, socket.socket]) -> Iterator[socket.socket]:
    """Those who asked for a kernel that has ended, each of whom is sent its exit status."""
    while running:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        asker = running.pop(process)
        with contextlib.suppress(OSError):
            asker.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        yield asker


def become(asked: dict, files: list[int]) -> None:
    """What a process that was started for it would have: a session, files, a folder, an environment; and run."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["ipykernel_launcher", "-f", asked["file"]]
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance()
    # As Python ends, but for the last step, in which it frees every object of every package: 0.4 s of the processor.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "kernel":
        raise SystemExit(stand_in(*arguments))
    sys.path.pop(0)  # a notebook does not find the tests
    with socket.socket(fileno=int(arguments[0])) as listening:
        forked = serve(listening)
    if forked:
        become(*forked)
