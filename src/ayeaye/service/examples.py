"""Faults as the service tells them, for the OpenAPI description: by status, and by route where it has others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fault = dict[str, Any]

ANY: Mapping[int, Fault] = {
    400: {"error": "the picture cannot be read: empty file (0 bytes)"},
    401: {"error": "this needs the token: send `Authorization: Bearer TOKEN`"},
    403: {
        "error": "the service has no token, so what it serves can be changed from its own machine alone: set "
        "AYEAYE_TOKEN, or serve.token_file, where it runs, and send `Authorization: Bearer TOKEN`"
    },
    404: {"error": "there is no run-time class fossa"},
    408: {"error": "the upload comes too slowly: send at least 16 kB a second, or a smaller picture"},
    409: {"error": "a run-time class fossa is there already: remove it first, or use another name"},
    413: {"error": "the upload is too large: at most 20,000,000 bytes are allowed"},
    415: {"error": "the request is text/plain: send application/json"},
    422: {"error": "the request is not as it should be: path.name (Input should be a valid string)"},
    429: {"error": "at most 20 per 1 second are answered: try again in 1 s"},
    500: {"error": "a fault of the service: see its log"},
    503: {"error": "the service's database cannot be used now: try again, and see its log"},
    504: {"error": "Not able to process the request in 60 seconds"},
}
_NO_PICTURE = {
    415: {
        "error": "the request is text/plain: send multipart/form-data (curl -F image=@FILE), or the picture as image/* "
        "or application/octet-stream"
    },
    503: {"error": "overloaded (256 requests wait already): try again"},
}
_PICTURE_ALONE = {
    **_NO_PICTURE,
    422: {"error": "the form has a field 'picture', which is not taken here: expected are `image`"},
}
_NO_JSON = {400: {"error": "the body is not JSON: EOF while parsing a value at line 1 column 0"}}
_UNKNOWN_WORDS = {
    "error": "no word of quux is known: quux, sprited (near: striped), animl (near: animal); describe it in other "
    "words",
    "near": {"quux": [], "sprited": ["striped"], "animl": ["animal"]},
}

OF: Mapping[str, Mapping[int, Fault]] = {
    "post /classify": _PICTURE_ALONE,
    "post /embed": _PICTURE_ALONE,
    "post /classify_batch": {
        **_NO_PICTURE,
        400: {"error": "0 fields `images`: send 1 to 64 pictures in it"},
        413: {"error": "the upload is too large: at most 100,000,000 bytes are allowed"},
        415: {"error": "the request is text/plain: send multipart/form-data (curl -F images=@FILE)"},
        422: {"error": "the form has a field 'image', which is not taken here: expected are `images`"},
    },
    "post /classify_among": {
        **_NO_PICTURE,
        400: {"error": "candidates is not JSON: expected value at line 1 column 1"},
        409: {
            "error": "not told apart: mine and zebra have the same description; describe what tells them apart"
        },
        415: {"error": "the request is text/plain: send multipart/form-data (curl -F image=@FILE)"},
        422: _UNKNOWN_WORDS,
    },
    "post /explain": {
        **_NO_PICTURE,
        409: {
            "error": "not told apart: mine and zebra have the same description; describe what tells them apart"
        },
        422: {"error": "no class okpai: did you mean okapi?", "near": {"okpai": ["okapi"]}},
    },
    "post /classes": {
        **_NO_JSON,
        413: {"error": "the upload is too large: at most 1,000,000 bytes are allowed"},
        422: _UNKNOWN_WORDS,
    },
    "get /classes/{name}": {
        404: {
            "error": "there is no class okpai (near: okapi): GET /classes says which there are",
            "near": {"okpai": ["okapi"]},
        },
    },
    "put /classes/{name}": {
        **_NO_JSON,
        409: {"error": "okapi is a class that was trained: choose another name"},
        413: {"error": "the upload is too large: at most 1,000,000 bytes are allowed"},
        422: {"error": "the address is of hyena, the class is fossa: send one name"},
    },
    "get /changes": {
        422: {
            "error": "the request is not as it should be: query.after (Input should be greater than or equal to 0)"
        },
    },
    "delete /classes/{name}": {
        409: {"error": "okapi was trained: only run-time classes can be removed"},
        422: {"error": "'a\\x00b' holds a character that is none: remove it"},
    },
    "post /feedback": {
        **_NO_JSON,
        409: {
            "error": "1000 pieces of feedback are pending, as many as are allowed: `ayeaye data review` decides them"
        },
        422: {"error": "that is not the id of an answer: send the `id` that came with one"},
    },
    "get /card": {
        404: {
            "error": "this model was packed without a card: `ayeaye promote VERSION` packs it with one",
        },
    },
    "get /samples": {
        422: {"error": "the request is not as it should be: query.use (Input should be 'class' or 'try')"},
    },
    "get /samples/{id}": {
        404: {"error": "there is no sample 0123456789abcdef: GET /samples says which there are"},
    },
}


def of(operation: str, status: int) -> Fault:
    """The example of a status of an operation, such as `post /classify`."""
    return OF.get(operation, {}).get(status, ANY[status])
