"""What the OpenAPI page says of bodies that the server reads without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.requests.labels import MOST_LABELS

SERVER = (
    "Predictions of the versions that the rollout records name, and labels for them. "
    "Errors of the server's own paths are application/problem+json and name the row and the field; "
    "those of other protocols are as these have them. The header x-request-timeout says after how "
    "many seconds a prediction is of no use any more."
)

TAGS: list[dict[str, Any]] = [
    {"name": "predictions", "description": "Rows in, predictions out"},
    {"name": "open inference protocol", "description": "Version 2, for its clients"},
    {"name": "mlflow scoring", "description": "As `mlflow models serve` has it, for its clients"},
    {"name": "labels", "description": "What was true, as it becomes known"},
    {"name": "reading", "description": "Versions and metrics"},
    {"name": "health", "description": "For supervisors and load balancers"},
]

PROBLEM: dict[str, Any] = {
    "description": "What is wrong, and where",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "row", "field"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "row": {"type": ["integer", "null"]},
                    "field": {"type": ["string", "null"]},
                },
            }
        }
    },
}

ERROR: dict[str, Any] = {
    "description": "What is wrong",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    },
}

_REFUSALS: dict[Any, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 413, 422, 503), PROBLEM)
# Beside those, of predictions.
_PREDICTED = (408, 429, 500, 504)


def _operation(
    tag: str,
    summary: str,
    body: dict[str, Any],
    answer: dict[str, Any],
    example: Any,
    refusals: Mapping[Any, dict[str, Any]] = _REFUSALS,
) -> dict[str, Any]:
    return {
        "tags": [tag],
        "summary": summary,
        "responses": {
            200: {"description": "OK", "content": {"application/json": {"schema": answer}}},
            **refusals,
        },
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body, "example": example}},
            }
        },
    }


_FALLBACK = {
    "type": "boolean",
    "description": "true where another version answered than the one it should be, which fails",
}

PREDICT = _operation(
    "predictions",
    "Predict; the answer's ids are what labels refer to",
    {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": {
                "type": "array",
                "minItems": 1,
                "description": "a row is a list in the order of the features (for a tensor flat "
                "or nested in its shape), or an object by their names; see /models",
                "items": {"anyOf": [{"type": "array"}, {"type": "object"}]},
            },
            "ids": {
                "type": "array",
                "description": "your own ids, one a row; otherwise the server makes them",
                "items": {"type": "string", "minLength": 1, "maxLength": 128},
            },
            "keys": {
                "type": "array",
                "description": "whom or what each row is about (a user, a device), or null; "
                "logged with the row, and what is logged can be deleted by it",
                "items": {"type": ["string", "null"], "minLength": 1, "maxLength": 128},
            },
        },
    },
    {
        "type": "object",
        "required": ["model", "version", "ids", "predictions"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "ids": {"type": "array", "items": {"type": "string"}},
            "predictions": {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            },
            "probabilities": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "number"}},
            },
            "classes": {"type": "array", "items": {"type": "string"}},
            "fallback": _FALLBACK,
        },
    },
    {"rows": [[5.1, 3.5, 1.4, 0.2]]},
    _REFUSALS | dict.fromkeys((*_PREDICTED, 415, 501), PROBLEM),
)

PREDICT["openapi_extra"]["requestBody"]["content"]["image/*"] = {
    "schema": {"type": "string", "format": "binary"}
}

LABELS = _operation(
    "labels",
    "Say what was true; stored durably before the answer, the latest label wins",
    {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_LABELS,
                "description": f"at most {MOST_LABELS} in one request, beside serving.max_body",
                "items": {
                    "type": "object",
                    "required": ["id", "value"],
                    "additionalProperties": False,
                    "properties": {
                        "id": {"type": "string", "minLength": 1, "maxLength": 128},
                        "value": {
                            "anyOf": [
                                {"type": "string"},
                                {"type": "number"},
                                {"type": "boolean"},
                            ]
                        },
                        "name": {"type": "string"},
                        "source": {"type": "string"},
                        "time": {"type": "string", "format": "date-time"},
                    },
                },
            }
        },
    },
    {"type": "object", "properties": {"stored": {"type": "integer"}}},
    {"labels": [{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "value": 3}]},
    _REFUSALS | {415: PROBLEM},
)

_V2_PARAMETERS = {"type": "object"}
_V2_TENSOR: dict[str, Any] = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string"},
        "parameters": _V2_PARAMETERS,
        "data": {"type": "array", "description": "the values, flat or nested"},
    },
}

INFER = _operation(
    "open inference protocol",
    "Predict; tensors as JSON, or as bytes after it (Inference-Header-Content-Length)",
    {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": _V2_PARAMETERS,
            "inputs": {"type": "array", "items": _V2_TENSOR},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": _V2_PARAMETERS},
                },
            },
        },
    },
    {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _V2_TENSOR},
        },
    },
    {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5, 3.5, 1.4, 0]}]},
    dict.fromkeys((*_PREDICTED, 400, 401, 403, 404, 413, 415, 503), ERROR),
)

_MLFLOW_ERROR: dict[str, Any] = {
    "description": "What is wrong",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error_code", "message"],
                "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
            }
        }
    },
}

INVOCATIONS = _operation(
    "mlflow scoring",
    "Predict; one of dataframe_split, dataframe_records, instances and inputs, or CSV",
    {
        "type": "object",
        "properties": {
            "dataframe_split": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "columns": {"type": "array", "items": {"type": "string"}},
                    "data": {"type": "array", "items": {"type": "array"}},
                },
            },
            "dataframe_records": {"type": "array", "items": {"type": "object"}},
            "instances": {"type": "array"},
            "inputs": {"anyOf": [{"type": "array"}, {"type": "object"}]},
        },
    },
    {
        "type": "object",
        "required": ["predictions", "ids", "version"],
        "properties": {
            "predictions": {"type": "array"},
            "ids": {"type": "array", "items": {"type": "string"}},
            "version": {"type": "string"},
            "fallback": _FALLBACK,
        },
    },
    {"dataframe_split": {"columns": ["a", "b"], "data": [[5.1, 3.5]]}},
    dict.fromkeys((*_PREDICTED, 400, 401, 403, 404, 413, 415, 503), _MLFLOW_ERROR),
)

INVOCATIONS["openapi_extra"]["requestBody"]["content"]["text/csv"] = {"schema": {"type": "string"}}
