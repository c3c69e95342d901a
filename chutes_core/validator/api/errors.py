"""Typed error -> HTTP answer: the one place of the control plane that knows statuses.

Invariant: every error of every route is `{"detail", "code", "hint"}` with the status of
domain/statuses; an error of no known type is logged with its traceback and told to nobody.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from chutes_core.base.errors import ChutesError, Exhausted, Unavailable
from chutes_core.validator.domain.statuses import status_of
from chutes_core.wire.control import ErrorBody

_CODES = {404: "no_such_path", 405: "wrong_method", 400: "bad_request"}
_HINTS = {
    404: "GET /docs lists the paths; chutes are called at /c/{slug}/…, /v1/… and /chutes/{id}/…",
    405: "the header Allow names the methods of this path",
    400: "GET /docs shows what this path takes",
}
_MAX_PROBLEMS = 5


def install_errors(app: FastAPI) -> None:
    """Make ``app`` answer every error in our shape."""
    app.add_exception_handler(ChutesError, _typed)
    app.add_exception_handler(RequestValidationError, _shape)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _unexpected)


def answer_of(error: ChutesError) -> JSONResponse:
    """Return the answer that a typed error stands for; its facts stay inside."""
    headers = {}
    if isinstance(error, Exhausted):
        headers["Retry-After"] = str(max(1, error.retry_after_s))
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = "5"
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(status, error.code, error.message, error.hint, headers)


async def _typed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChutesError)
    answer = answer_of(error)
    if answer.status_code >= 500:
        logger.bind(path=request.url.path, code=error.code).warning("Request failed")
    return answer


async def _shape(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()[:_MAX_PROBLEMS]
    ]
    return _answer(422, "bad_request", "; ".join(problems)[:2000], "see the API's /docs", {})


async def _plain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, f"http_{error.status_code}")
    hint = _HINTS.get(error.status_code, "")
    return _answer(error.status_code, code, str(error.detail), hint, dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.bind(path=request.url.path).opt(exception=error).error("Request failed unexpectedly")
    hint = "its operator finds why in its log"
    return _answer(500, "internal", "the validator failed", hint, {})


def _answer(
    status: int, code: str, detail: str, hint: str, headers: dict[str, str]
) -> JSONResponse:
    body = ErrorBody(detail=detail, code=code, hint=hint)
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)
