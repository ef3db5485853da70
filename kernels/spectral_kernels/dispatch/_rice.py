"""Whole numbers as Rice codes, and back, on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_kernels import rice
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_type, run
from spectral_kernels.dispatch._numbers import whole
from spectral_kernels.dispatch._uniform import check_rounding, check_step
from spectral_kernels.uniform import ROUNDING


def rice_fit(codes: Tensor, form: Form = "auto") -> Tensor:
    """The parameter of each entry that takes the fewest bits for all maps: (N, F) int32 -> by_entry (F,) int8.

    A few hundred maps tell as much as all: pass a sample of them.
    """
    need_type("rice_fit", torch.int32, codes=codes)
    _check_maps("rice_fit", codes)
    forms = Forms(rice.reference_fit, rice.cpu_fit, rice.cuda_fit)
    return run(forms, choose_form(form, codes.device), rice.LARGEST_PARAMETER * codes.numel(), (codes,))


def rice_encode(
    x: Tensor,
    by_entry: Tensor,
    by_map: Tensor,
    slab: int,
    step: float | None = None,
    rounding: float = ROUNDING,
    form: Form = "auto",
) -> tuple[Tensor, Tensor]:
    """(N, F) int32 codes -> words, offsets, as described in `spectral_kernels.rice`.

    by_entry, by_map  (F,) and (M,) int8: what the parameters are made of
    slab              maps that are read in one piece; `rice.slab_of` says how many
    step              with it x is float32, quantised on the way with `rounding`
    """
    need_type("rice_encode", torch.int32 if step is None else torch.float32, x=x)
    _check_maps("rice_encode", x)
    _check_parameters("rice_encode", x.shape[1], by_entry, by_map)
    forms = Forms(rice.reference, rice.cpu, rice.cuda)
    numbers = whole(slab, "slab", 1), 0.0 if step is None else check_step(step), check_rounding(rounding)
    return run(forms, choose_form(form, x.device), x.numel(), (x, by_entry, by_map), *numbers)


def rice_expand(
    words: Tensor,
    offsets: Tensor,
    by_entry: Tensor,
    by_map: Tensor,
    slab: int,
    span: tuple[int, int],
    step: float | None = None,
    form: Form = "auto",
) -> Tensor:
    """Undo `rice_encode` for the maps from span[0] up to span[1]: (maps, F) int32, or float32 with the step.

    span[0] is the first map of a slab, a multiple of `slab`. Raises ValueError where words, offsets and parameters
    disagree, and reads nothing beyond the words.
    """
    slab = whole(slab, "slab", 1)
    need_type("rice_expand", torch.uint32, words=words)
    need_type("rice_expand", torch.int64, offsets=offsets)
    _check_parameters("rice_expand", len(by_entry), by_entry, by_map)
    first, last = check_span(span, slab)
    check_words(words, offsets, -(-last // slab), spare=1)
    forms = Forms(rice.reference_expand, rice.cpu_expand, rice.cuda_expand)
    numbers = slab, (first, last), 0.0 if step is None else check_step(step)
    work, arguments = (last - first) * len(by_entry), (words, offsets, by_entry, by_map)
    return run(forms, choose_form(form, words.device), work, arguments, *numbers)


def _check_maps(name: str, x: Tensor) -> None:
    if x.ndim != 2:
        raise ValueError(f"{name} takes maps (N, F), got {tuple(x.shape)}")


def _check_parameters(name: str, entries: int, by_entry: Tensor, by_map: Tensor) -> None:
    need_type(name, torch.int8, by_entry=by_entry, by_map=by_map)
    if by_entry.shape != (entries,) or by_map.ndim != 1 or not len(by_map):
        raise ValueError(
            f"maps of {entries} entries need by_entry ({entries},) and by_map (M,) with M >= 1, "
            f"got {tuple(by_entry.shape)} and {tuple(by_map.shape)}"
        )
    _check_flags(by_entry)


def _check_flags(by_entry: Tensor) -> None:
    # On a GPU the kernels are right for any: to ask now would be to wait for it.
    flags = by_entry == rice.MOSTLY_ZERO
    if by_entry.device.type == "cpu" and flags.any():
        whole_fours = len(flags) // rice.FLAGGED * rice.FLAGGED
        fours = flags[:whole_fours].view(-1, rice.FLAGGED)
        if flags[whole_fours:].any() or (fours.any(1) != fours.all(1)).any():
            raise ValueError(f"by_entry flags entries that are no {rice.FLAGGED} from a multiple of {rice.FLAGGED} on")


def check_span(span: tuple[int, int], slab: int) -> tuple[int, int]:
    first, last = (whole(n, "span") for n in span)
    if first % slab or last < first:
        raise ValueError(f"span={span} must begin with a slab, at a multiple of {slab}, and not end before it begins")
    return first, last


def check_words(words: Tensor, offsets: Tensor, slabs: int, spare: int = 0) -> None:
    """ValueError unless the offsets are those of so many slabs, and the words as many as they say and `spare` ones."""
    if offsets.ndim != 1 or len(offsets) < slabs + 1:
        raise ValueError(f"the span has {slabs} slabs, but there are offsets {tuple(offsets.shape)}")
    # On a GPU the kernels alone look, and read nothing beyond the words: to ask now would be to wait for it.
    count = words.numel()
    if words.ndim != 1 or count < spare or (words.device.type == "cpu" and int(offsets[-1]) + spare != count):
        raise ValueError(f"the words were cut off: {count} are left of {int(offsets[-1]) + spare}")
