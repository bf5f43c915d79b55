"""What Azure says, as ours: the resource manager's answers, the ends of operations, the scoring door, its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from modelserve.backend import ErrorTable
from modelserve.backend.oip import error_of
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeadlineError,
    DeploymentNotFoundError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
    QuotaError,
    WireError,
)

_BY_STATUS: Mapping[int, type[ModelServeError]] = {
    400: ConfigError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: DeploymentNotFoundError,
    408: DeadlineError,
    409: NotReadyError,
    429: OverloadedError,
    503: NotReadyError,
    504: DeadlineError,
}

#: The service's code, or a piece of its text -> our class and what to do about it; the first that fits wins.
_MEANINGS: tuple[tuple[str, type[ModelServeError], str], ...] = (
    (
        "quota",
        QuotaError,
        "Ask for more quota of this family of sizes in the region (the service keeps a fifth of it for upgrades), "
        "or give another instance_type.",
    ),
    (
        "MissingSubscriptionRegistration",
        ConfigError,
        "Register the resource provider once: az provider register --namespace NAME.",
    ),
    ("AuthorizationFailed", AccessDeniedError, "`modelserve policy` prints the roles that are needed."),
    ("ResourceGroupNotFound", ConfigError, "Correct the option resource_group."),
    ("SubscriptionNotFound", ConfigError, "Correct the option subscription, or sign in to its directory."),
    ("MissingDriverProgram", ConfigError, "The environment has no routes; give an image of modelserve's runtime."),
    ("OutOfCapacity", QuotaError, "The region has no such machines now; try later, or another instance_type."),
    ("already exists", ConfigError, "Names are unique in a region; give another name, or the option endpoint_name."),
    ("ImagePull", ConfigError, "The endpoint's identity needs the role AcrPull on the registry."),
)


def from_answer(answer: httpx.Response, doing: str) -> ModelServeError:
    """The error that an answer of the resource manager other than 2xx stands for."""
    said = _error_in(answer)
    return _meant(said, _BY_STATUS.get(answer.status_code, BackendError), f"{doing} ({answer.status_code})", answer)


def from_operation(content: Mapping[str, Any], doing: str) -> ModelServeError:
    """The error with which a long operation ended."""
    return _meant(content.get("error") or {}, BackendError, doing, None)


def is_updating(answer: httpx.Response) -> bool:
    """Whether the endpoint is busy with another change, and will take this one later."""
    if answer.status_code != httpx.codes.CONFLICT:
        return False
    text = answer.text.lower()
    return any(word in text for word in ("updating", "creating", "deleting", "in progress", "conflictingoperation"))


def from_score(answer: httpx.Response) -> ModelServeError:
    """The error that the scoring door's answer stands for.

    424 means that the container answered, and not with 200: what it said is in the body, as our runtime wrote it.
    """
    inner = answer.headers.get("ms-azureml-model-error-statuscode", "")
    wait = answer.headers.get("retry-after", "1")
    if answer.status_code == httpx.codes.FAILED_DEPENDENCY and inner.isdecimal():
        return error_of(int(inner), answer.content, "The container", retry_after=wait)
    doing = f"The endpoint's door ({answer.status_code}): {_deepest(_error_in(answer))[1] or answer.reason_phrase}"
    kind = type(error_of(answer.status_code, b"", doing))
    return _of_kind(kind, f"{doing}. {_CURES.get(kind, '')}", answer)


_CURES: Mapping[type[ModelServeError], str] = {
    AccessDeniedError: "The key or token is not one of this endpoint's, or the endpoint answers within a private "
    "network only (public_network = false) and this caller is outside of it.",
    DeadlineError: "Give the option request_timeout_s, or smaller requests; it may have been answered all the same.",
    DeploymentNotFoundError: "No version of the model gets requests there.",
    OverloadedError: "Try again later, or scale.",
}


def azure_errors() -> ErrorTable:
    """Microsoft's classes as ours. All their packages raise classes of azure-core, or ones below those."""
    from azure.core import exceptions

    return {getattr(exceptions, name): ours for name, ours in _AZURE_CLASSES.items()}


def _by_its_status(error: BaseException) -> type[ModelServeError]:
    return _BY_STATUS.get(getattr(error, "status_code", 0) or 0, BackendError)


_AZURE_CLASSES: Mapping[str, Any] = {
    "AzureError": BackendError,
    "HttpResponseError": _by_its_status,
    "ClientAuthenticationError": AccessDeniedError,
    "ResourceNotFoundError": DeploymentNotFoundError,
    "ResourceExistsError": NotReadyError,
    "ServiceRequestTimeoutError": DeadlineError,
    "ServiceResponseTimeoutError": DeadlineError,
    "DecodeError": WireError,
    "DeserializationError": WireError,
    "SerializationError": ConfigError,
    "StreamClosedError": BackendError,
    "StreamConsumedError": BackendError,
    "ResponseNotReadError": BackendError,
}


def _error_in(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        content = answer.json()
    except (ValueError, RecursionError):
        return {"message": answer.text[:500]}
    error = content.get("error") if isinstance(content, dict) else None
    return error if isinstance(error, dict) else {"message": str(content)[:500]}


def _meant(
    said: Mapping[str, Any], kind: type[ModelServeError], doing: str, answer: httpx.Response | None
) -> ModelServeError:
    code, text = _deepest(said)
    cure = ""
    for piece, meant, remedy in _MEANINGS:
        if piece.lower() in f"{code} {text}".lower():
            kind, cure = meant, f" {remedy}"
            break
    request = "" if answer is None else answer.headers.get("x-ms-correlation-request-id", "")
    named = f" (correlation id {request})" if request else ""
    return _of_kind(kind, f"{doing}: {code or 'no code'}: {text or 'no reason given'}{named}.{cure}", answer)


def _deepest(said: Mapping[str, Any]) -> tuple[str, str]:
    """The code and text that say most: the service wraps the reason into one or more others."""
    found = list(_nested(said))
    codes = [code for code, _ in found if code]
    texts = list(dict.fromkeys(text.strip() for _, text in found if text))
    return (codes[-1] if codes else ""), " / ".join(texts)[:1500].rstrip(".")


def _nested(said: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if not isinstance(said, dict) or depth > 4:
        return
    yield str(said.get("code") or ""), str(said.get("message") or "")
    for inner in [*(said.get("details") or []), said.get("innererror") or said.get("innerError")]:
        yield from _nested(inner, depth + 1)


def _of_kind(kind: type[ModelServeError], text: str, answer: httpx.Response | None) -> ModelServeError:
    if kind is OverloadedError:
        wait = "" if answer is None else answer.headers.get("retry-after", "")
        return OverloadedError(text.strip(), retry_after_s=float(wait) if wait.isdecimal() else 1.0)
    return kind(text.strip())
