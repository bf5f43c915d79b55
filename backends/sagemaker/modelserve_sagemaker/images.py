"""The runtime's image in Amazon ECR: which one is meant, and its digest.

The image holds the runtime only and is named by what is in it, as `modelserve image build --push` names it: whoever
changes modelserve or its packages asks for another one, and never gets an older one by the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from modelserve import image as builder
from modelserve.errors import ConfigError, DeploymentNotFoundError, NotSupportedError
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.limits import architecture, has_accelerator
from modelserve_sagemaker.options import SageMakerOptions

REPOSITORY = "modelserve"
_REFERENCE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<suffix>amazonaws\.com(?:\.cn)?)/"
    r"(?P<repository>[a-z0-9._/-]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a registry of ECR."""

    account: str
    region: str
    repository: str
    tag: str | None
    digest: str | None
    reference: str


def recipe(options: SageMakerOptions) -> builder.Recipe:
    """What the runtime's own image is made of, for the machines that the options name."""
    return builder.Recipe(platform=builder.Platform(architecture(options.instance_type)))


def repository_of(account: Account, options: SageMakerOptions) -> tuple[str, str, str]:
    """Region, account and name of the repository of the image that is meant.

    Raises:
        ConfigError: as `image_of`.
    """
    if options.image is None:
        return account.region, account.number, REPOSITORY
    image = image_of(account, options)
    return image.region, image.account, image.repository


def image_of(account: Account, options: SageMakerOptions) -> Image:
    """The image that is meant.

    Raises:
        ConfigError: it is none of ECR, or lies in another region.
        NotSupportedError: the machine has an accelerator, which the runtime's own image does not use.
        ImageError: what would be in it is not installed here, so that its name is not known.
    """
    if options.image is None and has_accelerator(options.instance_type):
        raise NotSupportedError(
            f"{options.instance_type!r} has an accelerator, and modelserve's image is for processors only. "
            "Name an image with GPU packages by image=, or choose a machine such as 'ml.c7i.large'."
        )
    reference = options.image or f"{account.registry}/{REPOSITORY}:{_own_tag(recipe(options))}"
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ConfigError(
            f"image is {reference!r}; SageMaker takes images of Amazon ECR only, such as "
            f"'{account.registry}/modelserve:1.0'."
        )
    if found["region"] != account.region:
        raise ConfigError(
            f"image {reference!r} lies in {found['region']!r}, the endpoint in {account.region!r}. "
            "Push it to a registry of the endpoint's region."
        )
    return Image(found["account"], found["region"], found["repository"], found["tag"], found["digest"], reference)


def find(account: Account, options: SageMakerOptions) -> str | None:
    """The image by its digest, so that what runs cannot change under its name; None where it is not there.

    Raises:
        ConfigError, NotSupportedError, ImageError: as `image_of`.
    """
    image = image_of(account, options)
    if image.digest is not None:
        return image.reference
    try:
        answer = account.call(
            "ecr",
            "describe_images",
            registryId=image.account,
            repositoryName=image.repository,
            imageIds=[{"imageTag": image.tag or "latest"}],
        )
    except DeploymentNotFoundError:
        return None
    repository = image.reference.removesuffix(f":{image.tag}")
    return f"{repository}@{answer['imageDetails'][0]['imageDigest']}"


def missing(account: Account, options: SageMakerOptions) -> ConfigError:
    """What to say when it is not there."""
    reference = image_of(account, options).reference
    if options.image is not None:
        return ConfigError(f"image names {reference!r}, which is not there. Push it, or name another.")
    platform = recipe(options).platform
    return ConfigError(
        f"The runtime's image {reference!r} is not there. Make it with: modelserve image build --push "
        f"{account.registry}/{REPOSITORY} --platform {platform} (or by push_image = true)"
    )


@lru_cache(maxsize=8)
def _own_tag(made_of: builder.Recipe) -> str:
    return builder.tag_of(made_of)
