"""What an image is to be made of, and the name that follows from it.

The name holds the version of modelserve and a digest of everything that goes in; who finds an image of that name in a
registry need not make it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from modelserve.errors import ImageError
from modelserve.image.packages import check_extras, python_version
from modelserve.image.platform import Platform, refuse_accelerator
from modelserve.image.reference import Reference

# Python 3.12 on Debian, the list of its manifests for all platforms. By digest, so that the same modelserve gives the
# same image next year; raised with each release, since that is also how its security updates come in.
DEFAULT_BASE = Reference(
    "docker.io",
    "library/python",
    digest="sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea",
)
_DEFAULT_PYTHON = "3.12"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of.

    Attributes:
        base: An image with a `python` on its path; its digest, where it is named by a tag, is looked up.
        python: The version of that Python, such as "3.12"; by default what the base says of itself.
        extras: Of modelserve, beside what it always needs.
        accelerator: Refused, with the reason; here so that whoever is asked for one can pass it on.
    """

    platform: Platform = field(default_factory=lambda: Platform("amd64"))
    base: Reference = DEFAULT_BASE
    python: str = ""
    extras: tuple[str, ...] = ("container",)
    accelerator: str | None = None

    def __post_init__(self) -> None:
        if self.accelerator:
            refuse_accelerator(f"An image for {self.accelerator!r}")
        check_extras(self.extras)
        if self.python:
            python_version(self.python)

    @property
    def known_python(self) -> str:
        """The version of Python where no registry has to be asked for it; else empty."""
        if self.python:
            return python_version(self.python)
        return _DEFAULT_PYTHON if self.base == DEFAULT_BASE else ""

    def with_base(self, digest: str, python: str) -> Recipe:
        """The same, with what was looked up."""
        if not python:
            raise ImageError(
                f"{self.base} does not say which Python it has (PYTHON_VERSION). "
                "Say it: python='3.12', or --python 3.12."
            )
        return replace(self, base=self.base.at(digest), python=python_version(python))
