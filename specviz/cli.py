"""The command line: `specviz lab`, `specviz bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Spectral Workbench: the course and its measurements.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure on this machine and write records (JSON lines).")
app.add_typer(bench, name="bench")

Out = Annotated[Path, typer.Option(help="Folder for the records.")]


@app.command()
def lab(
    notebook: Annotated[str, typer.Argument(help="The notebook to open.")] = "notebooks/00_start_here.ipynb",
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1; the first free one from 8888 by default.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open the course in JupyterLab."""
    from specviz.lab import LabError, start

    try:
        start(notebook, port, browser)
    except LabError as error:
        sys.exit(str(error))


@app.command()
def machine() -> None:
    """Say what this machine has: threads, memory, GPU, versions."""
    from specviz.records import machine

    print(machine())


@bench.command()
def threshold(out: Out = Path("data/results"), millions: float = 8.9) -> None:
    """The threshold kernel's forms against plain torch, side by side in one run."""
    from specviz.bench.threshold import run

    run(out, int(millions * 1e6))


@bench.command()
def conv(out: Out = Path("data/results"), rounds: int = 7, quick: bool = False, only: str | None = None) -> None:
    """Band-limited convolution against torch's own and fft-conv-pytorch, every algorithm; --only 1,64,64,56 for one."""
    from specviz.bench.conv import run

    try:
        run(out, rounds, quick, only)
    except ValueError as error:
        sys.exit(str(error))


@bench.command()
def pool(out: Out = Path("data/results"), rounds: int = 9) -> None:
    """Spectral pooling against average pooling and plain FFTs."""
    from specviz.bench.pool import run

    run(out, rounds)


@bench.command()
def filters(out: Out = Path("data/results"), rounds: int = 7) -> None:
    """Linear and Gaussian spectral filters against full ones and torch's convolution: time and memory."""
    from specviz.bench.filters import run

    run(out, rounds)


@bench.command()
def memory(out: Out = Path("data/results"), rounds: int = 5, only: str | None = None) -> None:
    """SpecNet against its spatial twins: bytes of a training step, and a block's speed; --only vgg16-32 for one."""
    from specviz.bench.memory import run

    try:
        run(out, rounds, only)
    except ValueError as error:
        sys.exit(str(error))


@bench.command()
def compress(out: Out = Path("data/results"), rounds: int = 5) -> None:
    """compress_activations beside checkpointing, autocast and quantised maps: bytes, time, gradients."""
    from specviz.bench.compress import run

    run(out, rounds)


@bench.command()
def roofline(out: Out = Path("data/results"), rounds: int = 7) -> None:
    """How near the kernels come to what this machine can move and multiply."""
    from specviz.bench.roofline import run

    run(out, rounds)


@bench.command()
def slider(out: Out = Path("data/results"), moves: int = 60) -> None:
    """Slider press to painted pixels in a real browser, at 256, 512 and 1024 pixels a side."""
    from specviz.bench.browser import BrowserMissing
    from specviz.bench.slider import run

    try:
        run(out, moves)
    except BrowserMissing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    app()
