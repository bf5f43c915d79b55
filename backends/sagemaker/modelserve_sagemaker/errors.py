"""AWS's errors as ours. SageMaker says most things by one code and a sentence, so the sentence counts too.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from boto3 import exceptions as boto3_errors
from botocore import exceptions as vendor

from modelserve.backend import ErrorTable
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeadlineError,
    DeploymentNotFoundError,
    InputError,
    MissingExtraError,
    ModelServeError,
    NotReadyError,
    OverloadedError,
    QuotaError,
)

_BY_CODE: Mapping[str, type[ModelServeError]] = {
    "AccessDenied": AccessDeniedError,
    "AccessDeniedException": AccessDeniedError,
    "ExpiredToken": AccessDeniedError,
    "ExpiredTokenException": AccessDeniedError,
    "InvalidClientTokenId": AccessDeniedError,
    "SignatureDoesNotMatch": AccessDeniedError,
    "UnrecognizedClientException": AccessDeniedError,
    "403": AccessDeniedError,
    "Throttling": OverloadedError,
    "ThrottlingException": OverloadedError,
    "TooManyRequestsException": OverloadedError,
    "RequestLimitExceeded": OverloadedError,
    "SlowDown": OverloadedError,
    "ServiceUnavailable": OverloadedError,
    "ModelNotReadyException": NotReadyError,
    "ResourceLimitExceeded": QuotaError,
    "LimitExceededException": QuotaError,
    "ResourceInUse": NotReadyError,
    "NoSuchBucket": ConfigError,
    "404": DeploymentNotFoundError,
    "NoSuchKey": DeploymentNotFoundError,
    "ObjectNotFoundException": DeploymentNotFoundError,
    "ResourceNotFoundException": DeploymentNotFoundError,
    "ResourceNotFound": DeploymentNotFoundError,
    "RepositoryNotFoundException": DeploymentNotFoundError,
    "ImageNotFoundException": DeploymentNotFoundError,
}
_MISSING = re.compile(r"could not find|does not exist|not found", re.IGNORECASE)
_PRESENT = re.compile(r"already existing|already exists", re.IGNORECASE)
_BUSY = re.compile(r"in-progress|in progress|currently (being )?updat", re.IGNORECASE)


def code_of(error: BaseException) -> str:
    """AWS's own code; empty where it is no answer of AWS's."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, vendor.ClientError) else ""


def is_missing(error: BaseException) -> bool:
    """Whether what was asked for is not there."""
    kind = classified(error)
    return kind is not None and issubclass(kind, DeploymentNotFoundError)


def is_present(error: BaseException) -> bool:
    """Whether what was to be created is there already."""
    return code_of(error) in {"ValidationException", "ResourceInUse"} and bool(_PRESENT.search(str(error)))


def is_throttled(error: BaseException) -> bool:
    """Whether AWS refused without doing anything, because there were too many calls."""
    return _BY_CODE.get(code_of(error)) is OverloadedError


def classified(error: BaseException) -> type[ModelServeError] | None:
    """Our class for an answer of AWS's; None for what is no answer."""
    code = code_of(error)
    if not code:
        return None
    if code in {"ValidationException", "ValidationError"}:
        text = str(error)
        if _BUSY.search(text):
            return NotReadyError
        return DeploymentNotFoundError if _MISSING.search(text) else InputError
    return _BY_CODE.get(code, BackendError)


def _answered(error: BaseException) -> type[ModelServeError]:
    return classified(error) or BackendError


VENDOR_ERRORS: ErrorTable = {
    vendor.BotoCoreError: BackendError,
    vendor.ClientError: _answered,
    vendor.ConnectTimeoutError: BackendError,
    vendor.ReadTimeoutError: DeadlineError,
    vendor.NoCredentialsError: AccessDeniedError,
    vendor.PartialCredentialsError: AccessDeniedError,
    vendor.CredentialRetrievalError: AccessDeniedError,
    vendor.TokenRetrievalError: AccessDeniedError,
    vendor.SSOError: AccessDeniedError,
    vendor.ProfileNotFound: ConfigError,
    vendor.ConfigNotFound: ConfigError,
    vendor.ConfigParseError: ConfigError,
    vendor.NoRegionError: ConfigError,
    vendor.InvalidRegionError: ConfigError,
    vendor.ParamValidationError: InputError,
    vendor.MissingDependencyException: MissingExtraError,
    boto3_errors.Boto3Error: BackendError,
    boto3_errors.ResourceLoadException: BackendError,
    vendor.HTTPClientError: BackendError,
    vendor.MissingServiceIdError: BackendError,
    vendor.UndefinedModelAttributeError: BackendError,
}
