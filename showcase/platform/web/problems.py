"""Errors as `application/problem+json` (RFC 9457), from one table."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from showcase.kernel import errors

STATUS: Mapping[type[errors.DomainError], int] = {
    errors.Invalid: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Outdated: 412,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.TooLarge: 413,
    errors.TooMany: 429,
    errors.Unavailable: 503,
}
"""The one table: kind of domain error → status."""

MEDIA_TYPE = "application/problem+json"
MAX_POINTER_PART = 40


class InvalidRequest(errors.Invalid):
    """The request does not fit its schema."""


def status_of(kind: type[errors.DomainError]) -> int:
    """The status of a domain error of any slice."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def type_of(kind: type[errors.DomainError]) -> str:
    """The problem type: a relative reference that names the class, `EmptyBasket` → `/problems/empty-basket`."""
    return "/problems/" + re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def title_of(kind: type[errors.DomainError]) -> str:
    """The first line of the class's docstring."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")


def response_of(error: errors.DomainError) -> Response:
    """The answer that tells a domain error."""
    kind = type(error)
    headers = {}
    if isinstance(error, errors.Unavailable | errors.TooMany):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.Unauthenticated):
        parameters = {"realm": "showcase", **error.challenge}
        headers["WWW-Authenticate"] = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())
    return problem(status_of(kind), type_of(kind), title_of(kind), error.detail, headers, **error.facts)


def problem(
    status: int, type_: str, title: str, detail: str, headers: Mapping[str, str] | None = None, **facts: object
) -> Response:
    """A problem document."""
    content = {**facts, "type": type_, "title": title, "status": status, "detail": detail}
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Have an app answer every error with a problem document."""

    @app.exception_handler(errors.DomainError)
    async def domain_error(request: Request, error: errors.DomainError) -> Response:
        return response_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> Response:
        # Never with the input: it may be large, or a secret.
        found = [{"pointer": _pointer(one["loc"]), "detail": str(one["msg"])} for one in error.errors()[:20]]
        what = f"{found[0]['pointer']}: {found[0]['detail']}" if found else "it does not fit the schema"
        return response_of(InvalidRequest(what, errors=found))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return problem(
            error.status_code, "about:blank", HTTPStatus(error.status_code).phrase, str(error.detail), error.headers
        )


def bug() -> Response:
    """The answer when something is wrong with us."""
    return problem(
        500, "/problems/internal", "Something broke", "this is our fault; the request id finds it in the logs"
    )


def _pointer(place: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901). Names come from the request and may have any length."""
    parts = (str(part)[:MAX_POINTER_PART] for part in place)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def documented(*kinds: type[errors.DomainError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in OpenAPI: the problems that it may answer with, and those that any may."""
    every: dict[int | str, dict[str, Any]] = {
        400: {"description": "`about:blank`: the body cannot be read", "content": {MEDIA_TYPE: {"examples": {}}}}
    }
    for kind in (errors.Unavailable, InvalidRequest, *kinds):
        entry = every.setdefault(status_of(kind), {"description": "", "content": {MEDIA_TYPE: {"examples": {}}}})
        entry["description"] += f"{'; ' if entry['description'] else ''}`{type_of(kind)}`: {title_of(kind)}"
        example = {"type": type_of(kind), "title": title_of(kind), "status": status_of(kind), "detail": "…"}
        entry["content"][MEDIA_TYPE]["examples"][kind.__name__] = {"value": example}
    return every
