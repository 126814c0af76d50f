"""The worker process: `python -m homeostat.model_runtime.pyfunc_worker DESCRIPTOR`.

Beside the registry the only place that imports MLflow, and the only one that runs a user's own
modules. Whatever the model raises goes back as a reply; the worker lives until its parent does
not.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # no types come with it

from homeostat.errors import HomeostatError
from homeostat.model_runtime import wire
from homeostat.model_runtime.pyfunc_answers import Answers
from homeostat.model_runtime.pyfunc_inputs import Inputs

T = TypeVar("T")


def main(arguments: list[str]) -> int:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=int(arguments[0])) as connection:
        try:
            return _serve(connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return 0


def _end_with_parent(parent: int) -> None:
    """A model deep in a computation does not notice that nobody waits for it any more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _serve(connection: socket.socket) -> int:
    setup = wire.receive(connection, wire.Setup)
    model = _attempt(lambda: _Model(setup))
    if isinstance(model, wire.Reply):
        wire.send(connection, model)
        return 1
    wire.send(connection, wire.Reply(classes=model.answers.names, cold=model.cold))
    while True:
        rows = wire.receive(connection, wire.Rows)
        wire.send(connection, _answer(model, rows))


def _answer(model: _Model, rows: wire.Rows) -> wire.Reply:
    return _attempt(lambda: model.predict(rows))


def _attempt(work: Callable[[], T]) -> T | wire.Reply:
    """What comes of it, or a reply that says why nothing does."""
    try:
        return work()
    except HomeostatError as error:
        return wire.Reply(error=str(error))
    except Exception as error:  # noqa: BLE001 - whatever somebody's model raises
        traceback.print_exc()
        return wire.Reply(error=f"its own code raised {_last_line(error)}")


def _last_line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()


class _Model:
    """An MLflow model, warmed up: what it takes and how its answers are read."""

    def __init__(self, setup: wire.Setup) -> None:
        import mlflow.pyfunc  # once the environment is as we want it

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        pyfunc = mlflow.pyfunc.load_model(setup.folder)
        threadpool_limits(max(1, setup.threads))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(max(1, setup.threads))
        raw = _raw_model(pyfunc)
        self.inputs = Inputs(setup, pyfunc.metadata.get_input_schema())
        self.answers = Answers(setup, _predict(pyfunc, raw), raw)
        self.cold: str | None = None
        self._warm_up(setup, pyfunc)

    def predict(self, rows: wire.Rows) -> wire.Reply:
        return self.answers.reply(self.inputs.of(rows), rows.rows)

    def _warm_up(self, setup: wire.Setup, pyfunc: Any) -> None:
        example = pyfunc.metadata.load_input_example(setup.folder)
        if example is not None and hasattr(example, "shape"):
            self.answers.reply(example, len(example))
        elif setup.tensor_shape is not None:
            sample = self.inputs.sample(setup.warm_up_rows)
            self.answers.reply(sample, setup.warm_up_rows)
        else:
            self.cold = self._try_made_up(setup.warm_up_rows)

    def _try_made_up(self, rows: int) -> str | None:
        """What the model raises on made-up columns: they may be nothing that it takes, so that a
        sound model may fail on them. What is wrong with an answer that it gives is an error."""
        try:
            self.answers.reply(self.inputs.made_up(rows), rows)
            self.answers.forget()
        except HomeostatError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever somebody's model raises
            traceback.print_exc()
            return _last_line(error)
        return None


def _predict(pyfunc: Any, raw: Any) -> Callable[[Any], Any]:
    """scikit-learn's own predict: what MLflow does around it takes longer than most models."""
    flavor = pyfunc.metadata.flavors["python_function"]
    own = flavor.get("loader_module") == "mlflow.sklearn"
    if own and flavor.get("predict_fn", "predict") == "predict" and hasattr(raw, "predict"):
        pyfunc = raw
    predict: Callable[[Any], Any] = pyfunc.predict
    return predict


def _raw_model(pyfunc: Any) -> Any:
    """The model behind the pyfunc, where the flavor shows it."""
    try:
        return pyfunc.get_raw_model()
    except Exception:  # noqa: BLE001 - each flavor says no in its own way
        return None


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Whoever closes a model waits for this; what the libraries tidy up takes them seconds.
    os._exit(status)
