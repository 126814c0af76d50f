"""A version in the cache -> a model in memory, whatever kind it is."""

from __future__ import annotations

from pathlib import Path

from homeostat.errors import ModelError
from homeostat.model_runtime.contract import LoadedModel
from homeostat.model_runtime.placement import CPU, Placement
from homeostat.model_runtime.telling import version_of
from homeostat.records import ModelSpec
from homeostat.registry.cache import model_folder


def load(
    entry: Path,
    spec: ModelSpec,
    *,
    embedding: str | None,
    classes: tuple[str, ...],
    threads: int,
    placement: Placement = CPU,
) -> LoadedModel:
    """Load and warm up a version; raises ModelError saying what to do.

    `embedding` and `classes` are the settings'; empty, the version's own hold. The loaded model's
    spec names the classes in the order of its probabilities. Digests are the cache's to verify.
    """
    folder = model_folder(entry)
    embedding = embedding or spec.embedding
    classes = classes or spec.classes
    # Each runtime is imported when a version needs it: a server of one kind carries no other.
    if spec.runtime == "torch":
        from homeostat.model_runtime.torch_program import load_torch

        return load_torch(
            folder,
            spec,
            embedding=embedding,
            classes=classes,
            threads=threads,
            placement=placement,
        )
    if spec.runtime == "onnx":
        from homeostat.model_runtime.onnx_program import load_onnx

        return load_onnx(
            folder,
            spec,
            embedding=embedding,
            classes=classes,
            threads=threads,
            placement=placement,
        )
    if spec.runtime == "pyfunc":
        from homeostat.model_runtime.pyfunc import load_pyfunc

        return load_pyfunc(folder, spec, embedding=embedding, classes=classes, threads=threads)
    raise ModelError(
        f'{version_of(spec)} needs the runtime "{spec.runtime}", which this '
        "release does not have; upgrade Homeostat, or fetch the version again"
    )
