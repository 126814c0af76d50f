"""What a model of any flavor answers -> predictions, probabilities and embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.errors import ModelError
from homeostat.labels import canonical
from homeostat.model_runtime import wire
from homeostat.model_runtime.heads import Head, head_for
from homeostat.records import Task

_WHERE = "the model"


class Answers:
    """`raw` is the model behind MLflow's wrapper, where there is one to see."""

    def __init__(self, setup: wire.Setup, predict: Callable[[Any], Any], raw: Any) -> None:
        self._task = Task(setup.task)
        self._predict = predict
        self._raw = raw
        self._network = hasattr(raw, "named_modules")
        own = None if self._network else getattr(raw, "classes_", None)
        self._own = () if own is None else tuple(canonical(name) for name in own)
        self._head: Head | None = None
        self._hook = _Hook(raw, setup.embedding) if setup.embedding else None
        self.names = _names(self._own, setup.classes)
        self._renamed = dict(zip(self._own, self.names, strict=False))

    def reply(self, inputs: Any, rows: int) -> wire.Reply:
        answer = _as_array(self._predict(inputs))
        if len(answer) != rows:
            raise ModelError(f"{_WHERE} gives {len(answer)} outputs for {rows} rows")
        embedding = wire.Array.of(self._hook.take(rows)) if self._hook else None
        if self._task is Task.REGRESSION:
            head = self._head = self._head or head_for(self._task, answer, (), _WHERE)
            values = np.asarray(head.read(answer)[0], np.float64)
            return wire.Reply(values=wire.Array.of(values), embedding=embedding)
        if self._network or (answer.ndim == 2 and answer.shape[1] > 1):
            return self._scores(answer, embedding)
        return self._labels(answer.reshape(rows), inputs, embedding)

    def forget(self) -> None:
        """Rows that say nothing show not whether outputs are probabilities: the next ones will."""
        self._head = None

    def _scores(self, answer: NDArray[Any], embedding: wire.Array | None) -> wire.Reply:
        """A network's logits, or probabilities."""
        head = self._head = self._head or head_for(self._task, answer, self.names, _WHERE)
        self.names = head.classes
        labels, probabilities = head.read(answer)
        assert probabilities is not None
        return wire.Reply(
            labels=[str(label) for label in labels],
            probabilities=wire.Array.of(probabilities),
            embedding=embedding,
        )

    def _labels(
        self, answer: NDArray[Any], inputs: Any, embedding: wire.Array | None
    ) -> wire.Reply:
        """The classes themselves, as scikit-learn gives them."""
        texts = [canonical(value) for value in answer]
        probabilities = None
        if self._own and hasattr(self._raw, "predict_proba"):
            scores = np.asarray(self._raw.predict_proba(inputs), np.float32)
            probabilities = wire.Array.of(scores)
        return wire.Reply(
            labels=[self._renamed.get(text, text) for text in texts],
            probabilities=probabilities,
            embedding=embedding,
        )


def _names(own: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the order of the model's own classes."""
    if not given or not own or set(given) == set(own):
        return own or given
    if len(given) != len(own):
        raise ModelError(
            f"{_WHERE} knows {len(own)} classes ({', '.join(own)}), but {len(given)} are named; "
            "correct [model] classes"
        )
    return given


def _as_array(answer: Any) -> NDArray[Any]:
    if isinstance(answer, dict):
        raise ModelError(f"{_WHERE} answers with several outputs: {', '.join(answer)}; one is read")
    return np.asarray(answer)


class _Hook:
    """The output of one module of a pickled network, as it runs."""

    def __init__(self, network: Any, name: str) -> None:
        if not hasattr(network, "named_modules"):
            raise ModelError(
                f'[serving] embedding = "{name}" names a module of a torch network, which '
                "this model is not; remove the key"
            )
        modules = dict(network.named_modules())
        if name not in modules:
            known = ", ".join(filter(None, modules))
            raise ModelError(
                f'{_WHERE} has no module "{name}" for [serving] embedding; it has: {known}'
            )
        self._name = name
        self._seen: Any = None
        modules[name].register_forward_hook(self._keep)

    def _keep(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._seen = output

    def take(self, rows: int) -> NDArray[np.float32]:
        seen, self._seen = self._seen, None
        if getattr(seen, "ndim", 0) != 2 or len(seen) != rows:
            raise ModelError(
                f'the module "{self._name}" did not give one vector a row, so its output cannot '
                "be the embedding"
            )
        array: NDArray[np.float32] = seen.detach().cpu().numpy().astype(np.float32)
        return array
