"""A kernel that runs cells within a time limit, whatever is in them."""

from __future__ import annotations

import os
import queue
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from specviz.extras import needs

GRACE_SECONDS = 10.0  # for a cell to end after it was interrupted
START_SECONDS = 600.0  # for what is not the notebook that is graded: a busy machine is no fault of its


@dataclass
class Kernel:
    """Runs code and answers with a reply or, in words, why there is none. After `ended` nothing runs any more."""

    manager: Any
    client: Any
    ended: str = field(default="")

    def run(self, code: str, seconds: float, value: str = "") -> tuple[Any, str]:
        """The value of an expression after the code, and what went wrong in words, "" if nothing did."""
        if self.ended:
            return None, self.ended
        expressions = {"value": value} if value else {}
        request = self.client.execute(code, user_expressions=expressions, allow_stdin=False, stop_on_error=False)
        reply = self._reply(request, seconds)
        if reply is None and not self.ended:
            self.manager.interrupt_kernel()
            if self._reply(request, GRACE_SECONDS) is None and not self.ended:
                self.ended = "an earlier cell did not stop"
                self.manager.shutdown_kernel(now=True)
            return None, f"it took longer than {seconds:.0f} s and was stopped"
        if reply is None:
            return None, self.ended
        if reply["status"] == "error":
            return None, f"{reply['ename']}: {str(reply['evalue'])[:200]}"
        found = reply.get("user_expressions", {}).get("value", {})
        if found.get("status") == "error":
            return None, f"{found['ename']}: {str(found['evalue'])[:200]}"
        return found.get("data", {}).get("text/plain"), ""

    def _reply(self, request: str, seconds: float) -> Any:
        """The reply to a request, None after so many seconds, or once there is no kernel."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                message = self.client.get_shell_msg(timeout=min(left, 0.5))
            except queue.Empty:
                if not self.manager.is_alive():
                    self.ended = "the notebook ended its own kernel"
                    return None
                continue
            if message["parent_header"].get("msg_id") == request:
                return message["content"]
        return None


@contextmanager
def started(folder: str, environment: dict[str, str]) -> Iterator[Kernel]:
    """A kernel of this Python in a folder, which is gone afterwards; ValueError if none starts."""
    with needs("lab"):
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.manager import KernelManager

    place = {"transport": "ipc", "ip": os.path.join(folder, "kernel")} if os.name == "posix" else {}
    manager = KernelManager(kernel_name="python3", client_factory=BlockingKernelClient, **place)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(cwd=folder, env={**os.environ, **environment}, **quiet)
    client = manager.client()
    try:
        client.start_channels()
        try:
            client.wait_for_ready(timeout=START_SECONDS)
        except RuntimeError as error:
            raise ValueError(f"No kernel starts here to run the notebook: {error}.") from None
        client.iopub_channel.stop()  # what cells print is nobody's business
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
