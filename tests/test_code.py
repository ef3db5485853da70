"""Which code a trial computed with: what is another experiment, and what is the same one written better."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from specviz import training
from specviz.experiments import code, find

PACKAGE = Path(code.__file__).parent.parent


def config(network="vgg7", **options):
    return training.Config(experiment="demo", dataset="cifar10", network=network, network_options=options)


PLAIN = config(width=0.25)
SPECNET = config(width=0.25, convolution="specnet")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the rooms that one may edit: `edit(path, old, new)`, and then the digest of a config."""
    for room in code._ROOMS:
        shutil.copytree(PACKAGE / room, tmp_path / PACKAGE.name / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "_PACKAGE", tmp_path / PACKAGE.name)
    code._definitions.cache_clear()

    def edit(path, old, new):
        file = tmp_path / PACKAGE.name / path
        text = file.read_text()
        assert text.count(old) >= 1
        file.write_text(text.replace(old, new, 1))
        code._definitions.cache_clear()

    yield edit
    code._definitions.cache_clear()


def test_the_digest_of_a_config_of_ones_own_asks_for_no_slow_import():
    program = "import sys; from specviz.experiments import code; code.code_of(1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_digest_is_of_what_a_trial_computes_with(project):
    first = code.code_of(PLAIN)
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert first == code.code_of(PLAIN) != code.code_of(SPECNET)
    assert first != code.code_of(config(width=0.5))


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("models/forms.py", "            x += shortcut", "            x += 2 * shortcut", "plain"),  # plain: Unit
        ("training/batches.py", "import multiprocessing", "import multiprocessing\nMORE = 1", "plain, spectra"),
        ("functional/symbolic.py", "def one_node", "LESS = 2\n\n\ndef one_node", ""),  # which nothing uses
        ("functional/specnet/block2d.py", "def specnet_block2d(\n", "def specnet_block2d(\n    more,\n", "spectra"),
        ("nn/specnet.py", "class SpecNetBlock2d(_Block):", "class SpecNetBlock2d(_Block):\n    more = 1\n", "spectra"),
        ("nn/specnet.py", "class SpecNetPixelBlock2d(_Block):", "class SpecNetPixelBlock2d(_Block):\n    m = 1\n", ""),
        ("functional/thresholding.py", "def share_kept(", "def share_kept(more, ", "spectra"),  # at some remove
        ("functional/activation.py", "STEEPEST = ", "STEEPEST = 1.0 * ", "spectra"),  # a number
        # Training names this layer, to start it; these networks have none.
        ("nn/spectral_param.py", "class SpectralParamConv2d(", "@type\nclass SpectralParamConv2d(", ""),
        # Lists of names compute nothing; what else has a private function, an alias or an imported name is not meant.
        ("functional/__init__.py", "__all__ = [\n", '__all__ = [\n    "SpectralDomain",\n', ""),
        ("functional/spectral_param.py", "def _matrix(", "def _matrix(more, ", ""),
        ("functional/band_limited/direct.py", "def direct(", "def direct(more, ", ""),  # so named is a variable
        ("functional/band_limited/conv_transpose.py", "def _own(", "def _own(more, ", ""),  # and an attribute
        ("functional/rates.py", "def shipped(", "def shipped(more, ", ""),  # what chooses among exact ways
        ("functional/tuning.py", "def off(", "def off(more, ", ""),
        ("functional/tracing.py", "def leaves_a", "import math as F\n\n\ndef leaves_a", ""),
        ("functional/tracing.py", "def leaves_a", "class StoredSpectrum:\n    more = 1\n\n\ndef leaves_a", ""),
        ("nn/band_limited.py", "class BandLimitedConv2d", "MORE = 1\n\n\nclass BandLimitedConv2d", ""),
    ],
)
def test_a_change_of_code_is_one_for_those_who_use_it(project, path, old, new, changes):
    plain, spectra = code.code_of(PLAIN), code.code_of(SPECNET)
    project(path, old, new)
    assert (code.code_of(PLAIN) != plain) == ("plain" in changes)
    assert (code.code_of(SPECNET) != spectra) == ("spectra" in changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """What SpecNet\'s blocks share', '    """What they share'),
        ("# share of the coefficients, over the full plane, that the last call kept", "#"),
        ("device: torch.device | str | None,", "device: Any,"),
        ("    last_share_kept: float | None = None", "    last_share_kept: Any = (\n        None)"),
        ("from __future__ import annotations\n", "from __future__ import annotations\nfrom typing import Any\n"),
    ],
)
def test_how_it_is_written_is_no_part_of_it(project, old, new):
    before = code.code_of(SPECNET)
    project("nn/specnet.py", old, new)
    assert code.code_of(SPECNET) == before


def test_what_has_another_name_in_a_module_is_reached(project):
    project(
        "training/sizes.py", "import torch\n", "import torch\nfrom specviz.functional.symbolic import LESS as few\n"
    )
    project("training/sizes.py", "def at_side", "def more():\n    return few\n\n\ndef at_side")
    project("functional/symbolic.py", "def one_node", "LESS = 2\n\n\ndef one_node")
    before = code.code_of(PLAIN)
    project("functional/symbolic.py", "LESS = 2", "LESS = 3")
    assert code.code_of(PLAIN) != before


def test_a_network_is_what_is_built_and_how_it_begins(project, monkeypatch):
    before = code.code_of(PLAIN)
    project("models/plain.py", "    for usual in (32, 96, 160):", "    for usual in (32, 96, 161):")
    assert code.code_of(PLAIN) == before, "the function that builds is no part of it, but only what it has built"
    monkeypatch.setattr("specviz.models.forms.start", lambda conv, activation: conv)
    assert code.code_of(PLAIN) != before
    monkeypatch.undo()


def test_what_is_not_trained_by_ours_has_all_of_the_code(project):
    own = config("mymodule:network")
    (noop, *_) = find("noop").trials("tiny")
    assert code.code_of(own) == code.code_of(noop.config)
    before = code.code_of(own)
    project("nn/specnet.py", "class SpecNetPixelBlock2d(_Block):", "class SpecNetPixelBlock2d(_Block):\n    more = 1\n")
    assert code.code_of(own) == code.code_of(noop.config) != before


def test_asking_for_a_digest_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    code.code_of(PLAIN)
    assert torch.equal(torch.rand(3), expected)
