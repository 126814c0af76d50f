"""What a version's metadata says of images: how one becomes the tensor it takes."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from homeostat.errors import ModelError
from homeostat.records import ImageStep

KEY = "image"
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def image_step(
    metadata: dict[str, Any], shape: tuple[int, ...] | None, dtype: str, where: str
) -> ImageStep | None:
    """None where it says nothing; ModelError where it says what cannot be done."""
    if KEY not in metadata:
        return None
    try:
        step = msgspec.convert(metadata[KEY], ImageStep)
    except msgspec.ValidationError as error:
        raise ModelError(f'{where}: the metadata "{KEY}" is no image step: {error}') from None
    if (wrong := _wrong(step, shape or (), dtype)) is not None:
        raise ModelError(f'{where}: the metadata "{KEY}": {wrong}')
    return step


def _wrong(step: ImageStep, shape: tuple[int, ...], dtype: str) -> str | None:
    if len(shape) != 3 or step.channels(shape) not in CHANNELS:
        return (
            f"an image of the layout {step.layout} is a tensor of three sizes with "
            f"{', '.join(map(str, CHANNELS))} channels, not {list(shape)}"
        )
    if dtype.startswith(("int", "uint", "bool")) and (step.scale != 1 or step.mean or step.std):
        return f"a tensor of {dtype} takes the pixels as they are: scale 1, no mean, no std"
    numbers = {"scale": (step.scale,), "mean": step.mean, "std": step.std}
    for name, values in numbers.items():
        if name != "scale" and values and len(values) != step.channels(shape):
            return f"{name} has {len(values)} numbers for {step.channels(shape)} channels"
        if not all(math.isfinite(value) and (value > 0 or name == "mean") for value in values):
            return f"{name} cannot be {', '.join(map(str, values))}"
    return None
