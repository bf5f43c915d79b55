"""The name of an image: registry, repository, and a tag or the digest of its manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from modelserve.errors import InputError

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LETTERS = 255
_DOCKER_HUB = "docker.io"
#: Docker Hub answers under another name than the one that people write.
_DOCKER_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image lies.

    Attributes:
        registry: Host, with its port where it has one.
        digest: Of the manifest, "sha256:..."; empty where only a tag names it.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read "registry/repository:tag@digest"; without a registry it is Docker Hub's, as everywhere.

        Raises:
            InputError: it is no such name.
        """
        name, _, digest = text.partition("@")
        head, slash, tail = name.rpartition("/")
        last, _, tag = tail.partition(":")
        registry, repository = _divided(f"{head}{slash}{last}")
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _MOST_LETTERS:
            raise _refused(text, f"{repository!r} is no repository's name (lower case letters, digits, '.', '_', '-')")
        if tag and not _TAG.fullmatch(tag):
            raise _refused(text, f"{tag!r} is no tag")
        if "@" in text and not _DIGEST.fullmatch(digest):
            raise _refused(text, f"{digest!r} is no digest (sha256: and 64 hexadecimal digits)")
        return cls(registry, repository, tag, digest)

    @property
    def host(self) -> str:
        """Whom to ask."""
        return _DOCKER_HUB_HOST if self.registry == _DOCKER_HUB else self.registry

    @property
    def url(self) -> str:
        """Of its registry; plain HTTP on this machine only."""
        name = self.host.partition(":")[0]
        is_here = name == "localhost" or name.startswith("127.")
        return f"{'http' if is_here else 'https'}://{self.host}"

    @property
    def version(self) -> str:
        """What its registry knows it by: the digest where there is one."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        """The same repository, by this digest."""
        return replace(self, tag="", digest=digest)

    def tagged(self, tag: str) -> Reference:
        """The same repository, by this tag."""
        return replace(self, tag=tag, digest="")

    def __str__(self) -> str:
        return (
            f"{self.registry}/{self.repository}"
            f"{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"
        )


def _divided(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return first, rest if first != _DOCKER_HUB or "/" in rest else f"library/{rest}"
    return _DOCKER_HUB, name if slash else f"library/{name}"


def _refused(text: str, why: str) -> InputError:
    return InputError(f"{text!r} does not name an image: {why}. Write registry/repository:tag or @sha256:...")
