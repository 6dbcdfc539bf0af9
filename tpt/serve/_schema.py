"""The OpenAPI schemas of the two calls whose bodies we parse ourselves."""

from __future__ import annotations

from typing import Any


def _text(about: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": about, **more}


_PREDICTION = {
    "type": "object",
    "required": ["label", "index"],
    "properties": {
        "label": {"type": "string"},
        "score": {"type": "number"},
        "votes": {"type": "integer"},
        "index": {"type": "integer"},
    },
}
_ERROR = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
}
_RECORD = {
    "type": "object",
    "properties": {
        "path": _text("the picture's file name"),
        "predictions": {"type": "array", "items": _PREDICTION},
        "zero_shot": _PREDICTION,
        "adapt": {"type": "object"},
        "warning": {"type": "string"},
        "error": _ERROR,
        "details": {"type": "object"},
    },
}
_FORM = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": _text("a picture", format="binary")},
        "classes": _text('JSON list of class names: ["cat", "dog"]. Default: the service\'s own.'),
        "template": _text("words around the class name, {} in its place"),
        "method": _text("a name of GET /v1/model. Default: the service's own."),
        "top_k": {"type": "integer", "minimum": 1},
        "details": {"type": "boolean", "description": "also zero-shot answers and kept views"},
    },
}
_TASK = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": _text("the picture's file in base64"),
        "parameters": {
            "type": "object",
            "properties": {
                "candidate_labels": {"type": "array", "items": {"type": "string"}},
                "hypothesis_template": _text("words around the label, {} in its place"),
            },
        },
    },
}
_LABELS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"label": {"type": "string"}, "score": {"type": "number"}},
    },
}
_REFUSALS = {
    401: "token missing or wrong",
    413: "body or picture too large",
    415: "not a picture",
    421: "meant for another host",
    422: "wrong parameters",
    429: "the queue is full",
    503: "the model is loading, or the service is ending",
    504: "not answered in time",
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _describe(body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    refusal = {"type": "object", "properties": {"error": _ERROR}}
    refusals = {
        str(status): {"description": about, "content": _json(refusal)}
        for status, about in _REFUSALS.items()
    }
    return {
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "the answer", "content": _json(answer)}, **refusals},
    }


PREDICT = _describe(
    {"multipart/form-data": {"schema": _FORM}},
    {"type": "object", "properties": {"records": {"type": "array", "items": _RECORD}}},
)
TASK = _describe(_json(_TASK), _LABELS)
