"""The error shape of OpenAI's API."""

from __future__ import annotations

import pytest

from server.api.common.replies.errors import error_body, message_with_field
from server.errors import ApiError


def test_error_body_has_all_four_fields_and_the_details() -> None:
    error = ApiError(400, "n: is too large", param="n", code="invalid_value")
    fields = {
        "message": "n: is too large",
        "type": "invalid_request_error",
        "param": "n",
        "code": "invalid_value",
    }
    assert error_body(error) == {"error": fields}
    error.details = {"n_ctx": 512}
    assert error_body(error) == {"error": {**fields, "n_ctx": 512}}
    bare = {"message": "no", "type": "server_error", "param": None, "code": None}
    assert error_body(ApiError(500, "no"), "id") == {"error": bare}


@pytest.mark.parametrize(
    ("message", "param", "expected"),
    [
        ("is required", "model", "model: is required"),
        ("model: is required", "model", "model: is required"),
        ("model is required", "model", "model: is required"),
        ("is required", None, "is required"),
        ("modelling: no", "model", "model: modelling: no"),
    ],
)
def test_message_begins_with_the_field_once(message: str, param: str | None, expected: str) -> None:
    assert message_with_field(ApiError(400, message, param=param)) == expected
