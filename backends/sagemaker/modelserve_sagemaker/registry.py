"""The runtime's image into the account's own registry, where a target says `push_image = true`.

A token of ECR's opens every registry that the caller may use, for 12 hours; the repository is made first, since ECR
breaks off an upload to one that is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from modelserve import image as builder
from modelserve.errors import BackendError, ConfigError, DeploymentNotFoundError
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.images import image_of, recipe
from modelserve_sagemaker.options import SageMakerOptions


def login(account: Account) -> builder.Credentials:
    """Who we are to the account's registry, and nobody to any other."""

    def credentials(registry: str) -> builder.Login | None:
        if registry != account.registry:
            return builder.configured(registry)
        (data,) = account.call("ecr", "get_authorization_token")["authorizationData"]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        return builder.Password(user, password)

    return credentials


def push_runtime(account: Account, options: SageMakerOptions, tell: Callable[[str], None]) -> None:
    """Build the runtime's image for the machines that the options name, and push it under its usual name.

    Raises:
        ConfigError: the options name an image of their own, which is not for us to make.
        ImageError: it cannot be built or pushed.
    """
    if options.image is not None:
        raise ConfigError(f"image names {options.image!r}, which is not there, and push_image makes only our own.")
    place = image_of(account, options)
    _require_repository(account, place.repository)
    made = builder.build(recipe(options), credentials=login(account), on_progress=tell)
    tell(f"Pushing {made.size_bytes / 1e6:.0f} MB to {place.reference}")
    builder.push(made, place.reference, credentials=login(account))


def _require_repository(account: Account, name: str) -> None:
    try:
        account.call("ecr", "describe_repositories", repositoryNames=[name])
    except DeploymentNotFoundError:
        tags = [{"Key": "modelserve:made-by", "Value": "modelserve"}]
        try:
            account.call("ecr", "create_repository", repositoryName=name, tags=tags)
        except BackendError as error:
            if "RepositoryAlreadyExists" not in str(error):
                raise
