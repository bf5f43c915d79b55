"""An image into a registry: what is there already is left alone, the rest goes one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modelserve.image.assembly import Image, build, tag_of
from modelserve.image.credentials import Credentials, configured
from modelserve.image.recipe import Recipe
from modelserve.image.reference import Reference
from modelserve.image.repository import Repository
from modelserve.image.session import Session
from modelserve.image.upload import Outcome, chunk_bytes_of, upload


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a push is. Its text is for people."""

    doing: str
    done_bytes: int
    all_bytes: int

    def __str__(self) -> str:
        return f"{self.doing} ({self.done_bytes / 1e6:,.1f} of {self.all_bytes / 1e6:,.1f} MB)"


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """An image in a registry.

    Attributes:
        reference: By digest: it names this image and no other, now and later.
        outcomes: What became of each blob, by digest; empty where the whole image was there.
    """

    reference: Reference
    outcomes: dict[str, Outcome]


def push(
    image: Image,
    reference: Reference | str,
    *,
    credentials: Credentials = configured,
    chunk_bytes: int | None = None,
    on_progress: OnProgress | None = None,
) -> Pushed:
    """Put an image into a registry's repository, under the reference's tag or the image's own.

    Args:
        chunk_bytes: How much to send at once; by default as that registry takes it.
        on_progress: Called while bytes go out.

    Raises:
        AccessDeniedError: the registry does not let us.
        RegistryError: it cannot be reached, refuses, or has no such repository.
    """
    place = Reference.parse(reference) if isinstance(reference, str) else reference
    tag = place.tag or image.tag
    with Session(place, credentials) as session:
        repository = Repository(session, place.repository)
        if repository.digest(tag) == image.digest:
            return Pushed(place.at(image.digest), {})
        outcomes = _push_blobs(repository, image, chunk_bytes or chunk_bytes_of(place.registry), on_progress)
        repository.put_manifest(tag, image.manifest)
    return Pushed(place.at(image.digest), outcomes)


def find(
    repository: Reference | str, recipe: Recipe | None = None, *, credentials: Credentials = configured
) -> Reference | None:
    """The image of a recipe in a registry's repository, by digest; None where it was not put there yet."""
    place = Reference.parse(repository) if isinstance(repository, str) else repository
    tag = tag_of(recipe or Recipe(), credentials=credentials)
    with Session(place, credentials) as session:
        digest = Repository(session, place.repository).digest(tag)
    return None if digest is None else place.at(digest)


def ensure(
    repository: Reference | str,
    recipe: Recipe | None = None,
    *,
    credentials: Credentials = configured,
    on_progress: Callable[[str], None] | None = None,
) -> Reference:
    """The image of a recipe in a registry's repository, by digest; made and put there where it is not there yet.

    Raises:
        ModelServeError: as `build` and `push`.
    """
    found = find(repository, recipe, credentials=credentials)
    if found is not None:
        return found
    image = build(recipe, credentials=credentials, on_progress=on_progress)
    tell = None if on_progress is None else _in_lines(on_progress)
    return push(image, repository, credentials=credentials, on_progress=tell).reference


def _push_blobs(
    repository: Repository, image: Image, chunk_bytes: int | None, on_progress: OnProgress | None
) -> dict[str, Outcome]:
    blobs = image.blobs
    total, before = sum(blob.size_bytes for blob in blobs), 0
    outcomes: dict[str, Outcome] = {}
    # One after the other: registries break off several at once from one caller.
    for number, blob in enumerate(blobs, 1):
        tell = partial(_tell, on_progress, f"Pushing part {number} of {len(blobs)}", total, before)
        tell(0)
        outcomes[blob.digest] = upload(repository, blob, chunk_bytes=chunk_bytes, on_bytes=tell)
        before += blob.size_bytes
    _tell(on_progress, "Pushed", total, before, 0)
    return outcomes


def _tell(on_progress: OnProgress | None, doing: str, total: int, before: int, sent: int) -> None:
    if on_progress is not None:
        on_progress(Progress(doing, before + sent, total))


def _in_lines(tell: Callable[[str], None]) -> OnProgress:
    """Progress for who reads lines: one for each part, and not one for each piece of it."""
    said = ""

    def show(progress: Progress) -> None:
        nonlocal said
        if progress.doing != said:
            said = progress.doing
            tell(str(progress))

    return show
