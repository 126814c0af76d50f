"""An uploaded image is answered by a version that says how it becomes a tensor."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from serving_kit import CLASSES, Server, add_version, make_project, publish, running

from homeostat.errors import InputError, ModelError
from homeostat.jobs import write_atomically
from homeostat.records import Feature, ImageStep, ModelSpec, Task, VersionRef, to_json
from homeostat.registry.cache import (
    SPEC_FILE,
    digest_of,
    entry_path,
    hash_files,
    model_folder,
    read_spec,
)
from homeostat.registry.image_step import image_step
from homeostat.settings import Settings
from serving.requests.images import ImageReader

HEIGHT, WIDTH = 6, 8
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
STEP = ImageStep(mean=MEAN, std=STD)
SIZE = 3 * HEIGHT * WIDTH


def picture(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """Soft colours: what one file format loses is small."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([across, down, (across + down) / 2], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def expected(image: Image.Image) -> np.ndarray:
    """By the book: resized, to 0 .. 1, shifted and scaled, channels first."""
    pixels = np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1).reshape(1, -1)


def spec(shape: tuple[int, ...] = (3, HEIGHT, WIDTH), **more: Any) -> ModelSpec:
    names = tuple(Feature(name=f"x{i}") for i in range(int(np.prod(shape))))
    return ModelSpec(
        **{
            "model": "pictures",
            "version": "1",
            "runtime": "torch",
            "task": Task.CLASSIFICATION,
            "features": names,
            "tensor_shape": shape,
            "image": STEP,
            **more,
        }
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_an_image_becomes_a_row(mode: str) -> None:
    """Of whatever colours it is, and of whatever size."""
    image = picture(mode=mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    body = file_of(image, kind)
    rows = ImageReader(spec()).read(body)
    assert rows.count == 1
    assert rows.matrix is not None
    assert rows.matrix.dtype == np.float32
    assert rows.matrix == pytest.approx(expected(Image.open(BytesIO(body))), abs=1e-5)


def test_layout_and_fit_are_the_versions() -> None:
    """Channels last; the middle of the image; pixels as they are."""
    image = picture(40, 10)
    body = file_of(image)
    plain = ImageStep(layout="HWC", scale=1, fit="crop")
    rows = ImageReader(spec((8, 8, 3), image=plain, tensor_dtype="uint8")).read(body)
    middle = image.crop((15, 0, 25, 10)).resize((8, 8), Image.Resampling.BILINEAR)
    assert rows.matrix is not None
    assert rows.matrix.reshape(8, 8, 3) == pytest.approx(np.asarray(middle), abs=2)
    assert (rows.matrix == np.rint(rows.matrix)).all()
    grey = ImageReader(spec((1, 4, 4), image=ImageStep())).read(file_of(picture(mode="L")))
    assert grey.matrix is not None
    assert grey.matrix.shape == (1, 16)
    assert 0 <= grey.matrix.min() < grey.matrix.max() <= 1


@pytest.mark.parametrize(
    ("metadata", "shape", "dtype", "says"),
    [
        ([], (3, 4, 4), "float32", "no image step"),
        ({"layout": "CWH"}, (3, 4, 4), "float32", "no image step"),
        ({}, None, "float32", "three sizes"),
        ({}, (4, 4, 3), "uint8", "image"),
        ({"layout": "HWC"}, (3, 4, 4, 1), "float32", "three sizes"),
        ({"layout": "HWC"}, (4, 4, 5), "float32", "channels"),
        ({"scale": 0}, (3, 4, 4), "float32", "scale"),
        ({"mean": [0.5]}, (3, 4, 4), "float32", "mean has 1 numbers for 3"),
        ({"std": [1, 1, 0]}, (3, 4, 4), "float32", "std cannot"),
        ({"scale": 0.5}, (3, 4, 4), "uint8", "as they are"),
    ],
)
def test_a_step_that_cannot_be_is_refused_when_a_version_is_fetched(
    metadata: Any, shape: tuple[int, ...] | None, dtype: str, says: str
) -> None:
    """And not when the first image comes."""
    with pytest.raises(ModelError, match=says):
        image_step({"image": metadata}, shape, dtype, "version 1 of pictures")


def test_a_step_is_read_from_the_metadata() -> None:
    """All of it has a default; without a word there is none."""
    given = {"layout": "HWC", "fit": "crop", "scale": 1, "mean": [1, 2, 3], "std": [1, 1, 1]}
    found = image_step({"image": given}, (4, 4, 3), "float32", "it")
    assert found == ImageStep(layout="HWC", fit="crop", scale=1, mean=(1, 2, 3), std=(1, 1, 1))
    assert image_step({"image": {}}, (3, 4, 4), "float32", "it") == ImageStep()
    assert image_step({}, (3, 4, 4), "float32", "it") is None


def test_damaged_images_are_told() -> None:
    """Cut off or changed: an error of the caller's, or a picture after all."""
    reader, dice = ImageReader(spec()), random.Random(7)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        body = file_of(picture(), kind)
        for _ in range(60):
            wrong = bytearray(body[: dice.randrange(20, len(body))])
            wrong[dice.randrange(12, len(wrong))] = dice.randrange(256)
            try:
                rows = reader.read(bytes(wrong))
            except InputError:
                continue
            assert rows.matrix is not None
            assert np.isfinite(rows.matrix).all()


class Colours(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = torch.nn.Linear(SIZE, len(CLASSES))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(rows.flatten(1))
        return scores


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    project = make_project(tmp_path_factory.mktemp("images") / "project", model="pictures")
    plain = make_project(project.project.parent / "plain")
    publish(plain, add_version(plain, 1), epoch=1)
    entry = entry_path(project.cache_path, "pictures", "1")
    program = torch.export.export(
        Colours().eval(),
        (torch.zeros(3, 3, HEIGHT, WIDTH),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    path = model_folder(entry) / "data" / "model.pt2"
    path.parent.mkdir(parents=True)
    torch.export.save(program, path)
    found = replace(spec(), files=hash_files(model_folder(entry)))
    write_atomically(entry / SPEC_FILE, to_json(found))
    publish(project, VersionRef(version="1", digest=digest_of(found)), epoch=1)
    assert read_spec(entry).image == STEP
    return project


@pytest.fixture(scope="module")
def server(project: Settings) -> Iterator[Server]:
    with running(project.project, project.project.parent / "plain") as server:
        yield server


def upload(server: Server, body: bytes, model: str = "pictures") -> httpx.Response:
    path = f"/models/{model}/predict"
    return server.http.post(path, content=body, headers={"content-type": "image/png"})


def test_an_uploaded_image_is_answered(server: Server) -> None:
    """As its pixels are when they are sent as rows, with an id of its own."""
    image = picture()
    answer = upload(server, file_of(image))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    rows = {"rows": expected(image).astype(np.float32).tolist()}
    sent = server.http.post("/models/pictures/predict", json=rows).json()
    assert found["predictions"] == sent["predictions"]
    assert found["probabilities"][0] == pytest.approx(sent["probabilities"][0], abs=1e-4)
    assert len(found["ids"]) == 1
    about = server.http.get("/v2/models/pictures").json()["parameters"]["image"]
    assert (about["layout"], about["mean"]) == ("CHW", list(MEAN))


def test_what_is_wrong_with_an_image_is_told(server: Server) -> None:
    """Damaged, far too large, or sent to a version that takes none."""
    body = file_of(picture())
    assert upload(server, body[: len(body) // 2]).status_code == 422
    huge = bytearray(file_of(Image.new("L", (1, 1))))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # what its head says of its size
    assert upload(server, bytes(huge)).status_code in (413, 422)
    refused = upload(server, body, "shapes")
    assert (refused.status_code, "image step" in refused.json()["detail"]) == (415, True)
    assert upload(server, b"no image").status_code == 400


def test_images_and_rows_share_the_server(server: Server) -> None:
    """A large image is read beside the event loop: many at once are all answered."""
    body = file_of(picture(1500, 1000), "JPEG")
    first = upload(server, body).json()["probabilities"]
    for _ in range(5):
        assert upload(server, body).json()["probabilities"] == first
    assert json.loads(server.http.get("/v2/health/ready").content) == {"ready": True}
