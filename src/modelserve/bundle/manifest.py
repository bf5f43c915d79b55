"""What a bundle says of itself: `manifest.json`.

    digest   = sha256 of what the model means: format, signature, lineage, model files
    checksum = sha256 of the whole manifest, reports included, so that no part can change unseen

Reports, times and machines lie outside the digest: the same source and example always give the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from modelserve.errors import DamagedBundleError, ForeignBundleError, NewerBundleError, SignatureError
from modelserve.tensors import Signature, TensorSpec

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model came from. `versions` maps packages to the versions that took part."""

    framework: str
    type: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done to the model, with the settings that change its result. Settings are plain JSON."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's content by its digest. `sha256` is lower-case hex."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle's self-description.

    Attributes:
        files: The model's own files by name; covered by the digest.
        beside: Files that are no part of the model, such as the example.
        rows_independent: Whether an answer's row depends on that row of the input only (found by trying), so that
            rows of several requests may be joined.
        reports: Plain JSON objects, each with a `kind`, such as the fidelity report of a conversion.
    """

    signature: Signature
    origin: Origin
    lineage: tuple[Step, ...]
    files: Mapping[str, FileEntry]
    beside: Mapping[str, FileEntry] = field(default_factory=dict)
    rows_independent: bool = False
    reports: tuple[Mapping[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Names the model everywhere: 64 lower-case hex digits."""
        meaning = {key: self._content()[key] for key in ("format", "signature", "lineage", "rows_independent", "files")}
        return hashlib.sha256(_canonical(meaning)).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of the model's files together."""
        return sum(entry.size_bytes for entry in self.files.values())

    def with_reports(self, reports: Sequence[Mapping[str, Any]]) -> Manifest:
        """The same model with these reports instead."""
        return replace(self, reports=tuple(reports))

    def to_json(self) -> bytes:
        """The content of `manifest.json`."""
        content = {**self._content(), "digest": self.digest}
        content["checksum"] = hashlib.sha256(_canonical(content)).hexdigest()
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read `manifest.json`.

        Raises:
            ForeignBundleError: it is no manifest.
            NewerBundleError: its format is newer than this version reads.
            DamagedBundleError: it does not match its own checksum.
        """
        try:
            parsed = json.loads(content)
            version, checksum = parsed["format"], parsed.pop("checksum", None)
            found = hashlib.sha256(_canonical(parsed)).hexdigest()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ForeignBundleError(f"This manifest is not one of a bundle ({error!r}).") from error
        if not isinstance(version, int) or version < 1:
            raise ForeignBundleError(f"This manifest is not one of a bundle: its format is {version!r}.")
        if version > FORMAT:
            raise NewerBundleError(
                f"The bundle has format {version!r}, this modelserve reads up to {FORMAT}. Upgrade modelserve."
            )
        if checksum != found:
            raise DamagedBundleError("The manifest does not match its checksum. Make the bundle again.")
        manifest, digest = _manifest(parsed)
        if parsed.get("digest") != digest:
            raise DamagedBundleError("The manifest's digest is not that of its content. Make the bundle again.")
        return manifest

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "signature": signature_to_json(self.signature),
            "origin": asdict(self.origin),
            "lineage": [asdict(step) for step in self.lineage],
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "beside": {name: asdict(entry) for name, entry in sorted(self.beside.items())},
            "rows_independent": self.rows_independent,
            "reports": [dict(report) for report in self.reports],
        }


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """A signature as plain JSON."""
    return {
        "inputs": [asdict(spec) for spec in signature.inputs],
        "outputs": [asdict(spec) for spec in signature.outputs],
        "primary": signature.primary,
    }


def signature_from_json(content: Mapping[str, Any]) -> Signature:
    """The signature that `signature_to_json` wrote."""
    return Signature(
        tuple(_spec(entry) for entry in content["inputs"]),
        tuple(_spec(entry) for entry in content["outputs"]),
        content["primary"],
    )


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(
        entry["name"], entry["dtype"], tuple(entry["shape"]), tuple(entry["columns"]), entry["allows_nan"]
    )


def _manifest(parsed: Mapping[str, Any]) -> tuple[Manifest, str]:
    try:
        manifest = Manifest(
            signature=signature_from_json(parsed["signature"]),
            origin=Origin(**parsed["origin"]),
            lineage=tuple(Step(**step) for step in parsed["lineage"]),
            files={name: FileEntry(**entry) for name, entry in parsed["files"].items()},
            beside={name: FileEntry(**entry) for name, entry in parsed["beside"].items()},
            rows_independent=parsed["rows_independent"],
            reports=tuple(dict(report) for report in parsed["reports"]),
        )
        return manifest, manifest.digest
    except (KeyError, ValueError, TypeError, AttributeError, SignatureError) as error:
        raise ForeignBundleError(f"The manifest lacks a part or has one of a wrong kind ({error!r}).") from error


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
