"""An uploaded image -> a row, as the version's metadata says; in a thread, since large ones take
long."""

from __future__ import annotations

from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import InputError
from homeostat.records import ImageStep, ModelSpec
from serving.requests.aside import Aside, Then
from serving.requests.asked import Asked
from serving.requests.forms import Written
from serving.requests.later import Later
from serving.requests.parsing import Matrix, Rows
from serving.requests.problem import Refused, TooLarge
from serving.requests.rows import RowCheck

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MOST_PIXELS = 50_000_000  # a small file may stand for any number of them
MOST_OPEN = 64  # images that wait for the thread


def is_image(body: bytes) -> bool:
    """By its first bytes; no JSON begins with them."""
    return body.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM")) or (
        body.startswith(b"RIFF") and body[8:12] == b"WEBP"
    )


class ImageReader:
    """Reads the images for one version, one after the other."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._dtype = RowCheck(spec).dtype
        self._aside = Aside("images", MOST_OPEN)

    def later(self, body: bytes, then: Then, asked: Asked | None = None) -> Later[Written]:
        """What `then` answers to the image's row. Raises Overloaded, Overdue, Refused at once."""
        spec = self._spec
        if spec.image is None:
            raise Refused(
                f"version {spec.version} of {spec.model} names no image step; send its rows as "
                'JSON, or log it with metadata={"image": {…}}',
                status=415,
            )
        return self._aside.later(partial(self.read, body), then, asked)

    def read(self, body: bytes) -> Rows:
        """Raises InputError, TooLarge, Refused where Pillow is missing."""
        step, shape = self._spec.image, self._spec.tensor_shape
        assert step is not None
        assert shape is not None
        return Rows(1, None, self._prepared(_opened(body, step, shape), step, step.channels(shape)))

    def _prepared(self, pixels: NDArray[np.uint8], step: ImageStep, channels: int) -> Matrix:
        values: Matrix = pixels.reshape(*pixels.shape[:2], channels).astype(self._dtype)
        if step.scale != 1:
            values *= step.scale
        if step.mean:
            values -= np.array(step.mean, self._dtype)
        if step.std:
            values /= np.array(step.std, self._dtype)
        if step.layout == "CHW":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values).reshape(1, -1)


def _opened(body: bytes, step: ImageStep, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The pixels, in the model's size and channels."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise Refused("images need Pillow: pip install 'homeostat[images]'", status=501) from None
    size, mode, bilinear = step.size(shape), MODES[step.channels(shape)], Image.Resampling.BILINEAR
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise TooLarge(f"an image may have {MOST_PIXELS} pixels")
            plain = image.convert(mode)
    except TooLarge:
        raise
    except Exception as error:  # whatever Pillow finds wrong with somebody's file
        raise InputError(f"the image cannot be read: {error}", row=0) from error
    if step.fit == "crop":
        plain = ImageOps.fit(plain, size, bilinear)
    elif plain.size != size:
        plain = plain.resize(size, bilinear)
    return np.asarray(plain, np.uint8)
