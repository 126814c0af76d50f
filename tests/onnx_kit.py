"""Networks as ONNX models, made node by node, and as entries of a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from homeostat.records import Feature, ModelSpec, Task, to_json
from homeostat.registry.cache import SPEC_FILE, entry_path, hash_files, model_folder

FEATURES, HIDDEN = 5, 4


def weights(outputs: int = 3, seed: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w1": random.standard_normal((FEATURES, HIDDEN)).astype(np.float32),
        "w2": random.standard_normal((HIDDEN, outputs)).astype(np.float32),
    }


def network(
    outputs: int = 3, *, last: str | None = None, rows: int | None = None, shown: bool = True
) -> onnx.ModelProto:
    """rows @ w1 -> relu (the output "embedding", where `shown`) @ w2 -> `last` -> "logits"."""
    nodes = [
        helper.make_node("MatMul", ["rows", "w1"], ["first"]),
        helper.make_node("Relu", ["first"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "w2"], ["second" if last else "logits"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["second"], ["logits"]))
    given = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [rows or "n", FEATURES])]
    found = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows or "n", outputs])]
    if shown:
        vector = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", HIDDEN])
        found.append(vector)
    tensors = [numpy_helper.from_array(each, name) for name, each in weights(outputs).items()]
    graph = helper.make_graph(nodes, "network", given, found, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def means() -> onnx.ModelProto:
    """The mean of each of an image's three channels: next to nothing to compute."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["rows"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3, 64, 64])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "means", [given], [found])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def answers(rows: np.ndarray, outputs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embedding, by NumPy."""
    given = weights(outputs)
    embedding = np.maximum(rows @ given["w1"], 0)
    return embedding @ given["w2"], embedding


def entry_of(folder: Path, model: onnx.ModelProto | bytes, **more: object) -> Path:
    """A cache entry as fetching makes it, without MLflow in between."""
    entry = entry_path(folder, "net", "1")
    model_folder(entry).mkdir(parents=True)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (model_folder(entry) / "model.onnx").write_bytes(data)
    said = {"task": Task.CLASSIFICATION, "tensor_shape": (FEATURES,)} | more
    spec = ModelSpec(
        model="net",
        version="1",
        runtime="onnx",
        features=tuple(Feature(name=f"x{i}") for i in range(FEATURES)),
        files=hash_files(model_folder(entry)),
        **said,  # type: ignore[arg-type]
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return entry
