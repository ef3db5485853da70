"""The forked kernels of tests are kernels like any other: their own process, folder, environment, signals and end."""

import os
import sys
import time

import pytest
from jupyter_client.manager import start_new_kernel
from warm_kernel import NAME, kernels

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux")]


@pytest.fixture(scope="module")
def started():
    with kernels() as imported:
        imported()
        yield


@pytest.fixture
def kernel(started, tmp_path):
    manager, client = start_new_kernel(120, NAME, cwd=str(tmp_path), env={**os.environ, "SPECVIZ_SAID": "to it"})
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value(client, code: str, expression: str) -> str:
    reply = client.execute(code, user_expressions={"value": expression}, reply=True, timeout=120)["content"]
    assert reply["status"] == "ok", reply
    return eval(reply["user_expressions"]["value"]["data"]["text/plain"])


def test_it_has_a_folder_an_environment_and_modules_of_its_own(kernel, tmp_path):
    _, client = kernel
    assert value(client, "import os, sys", "os.getcwd()") == str(tmp_path)
    assert value(client, "", "os.environ['SPECVIZ_SAID']") == "to it"
    assert value(client, "", "os.getsid(0) == os.getpid()") is True
    assert value(client, "", "'specviz.widgets' in sys.modules and 'torch' in sys.modules") is True
    assert value(client, "", "[p for p in sys.path if 'tests' in p]") == []
    assert value(client, "", "'conftest' in sys.modules or 'pytest' in sys.modules") is False


def test_compiled_and_parallel_code_runs_in_two_of_them(kernel, started):
    code = "import torch, numpy as np, specviz as sv; x = torch.randn(4, 8, 256, 256, dtype=torch.float64)"
    sums = "float((sv.HalfSpectrum.of(x).image() - x).abs().max() + (x.relu() @ x - x.relu() @ x).abs().max()) < 1e-9"
    _, client = kernel
    assert value(client, code, sums) is True
    manager, other = start_new_kernel(120, NAME)
    try:
        assert value(other, code, sums) is True
        assert value(other, "import os", "os.getpid()") != value(client, "import os", "os.getpid()")
    finally:
        other.stop_channels()
        manager.shutdown_kernel(now=True)


def test_it_is_interrupted_and_goes_on(kernel):
    manager, client = kernel
    asked = client.execute("import time\nprint('begun')\nwhile True: time.sleep(0.01)")
    while client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != asked:
        pass  # an answer to the client's own questions, of which a slow start has several
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert value(client, "", "6 * 7") == 42


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(claim) -> None:
    end = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_its_death_is_seen_and_it_dies_with_its_manager(kernel):
    manager, client = kernel
    client.execute("import os; os.kill(os.getpid(), 9)")
    wait_until(lambda: not manager.is_alive())
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=120)
    process = value(client, "import os", "os.getpid()")
    assert not gone(process)
    manager.shutdown_kernel(now=True)
    wait_until(lambda: gone(process))
