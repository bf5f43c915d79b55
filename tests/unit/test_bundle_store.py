"""Bundles on disk: whole or not at all, and checked when opened."""

import errno
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from modelserve.bundle import Bundle, Manifest, Origin, Step, bundles_home, store, write
from modelserve.errors import BundleError, DamagedBundleError, ForeignBundleError
from modelserve.tensors import Signature, TensorSpec
from modelserve.testing import models


def small(name: str = "x", *, into: Path | None = None, reports: tuple = (), scale: float = 2.0) -> Bundle:
    """`name` float32[batch] -> `y`: name * scale."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "by"], ["y"])],
        "model",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch"])],
        [onnx.numpy_helper.from_array(np.float32([scale]), "by")],
    )
    return write(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        signature=Signature((TensorSpec(name, "float32", ("batch",)),), (TensorSpec("y", "float32", ("batch",)),)),
        origin=Origin("test", "Small"),
        lineage=(Step("make"),),
        example={name: np.ones(2, np.float32)},
        reports=reports,
        into=into,
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWriting:
    def test_the_same_model_has_the_same_digest_and_is_kept_once(self) -> None:
        first, second = small(), small()
        assert first.digest == second.digest
        assert first.path == second.path == bundles_home() / first.digest
        assert left(bundles_home()) == [first.digest]

    def test_what_was_written_is_what_is_opened(self) -> None:
        bundle = small()
        opened = Bundle.open(bundle.path)
        assert opened == bundle
        assert opened.example()["x"].tolist() == [1.0, 1.0]

    def test_newer_reports_replace_the_older_ones_under_the_same_digest(self) -> None:
        old, new = small(reports=({"kind": "old"},)), small(reports=({"kind": "new"},))
        assert old.digest == new.digest
        assert Bundle.open(new.path).manifest.reports == ({"kind": "new"},)
        assert left(bundles_home()) == [new.digest]

    def test_a_damaged_one_gives_way_to_the_whole_one(self) -> None:
        bundle = small()
        bundle.model_path.write_bytes(b"rubbish")
        small()
        assert Bundle.open(bundle.path) == bundle

    @pytest.mark.parametrize("name", ["file", "allow_pickle", "args", "self", "a/b", "größe", "x.npy"])
    def test_an_input_may_have_any_name(self, name: str) -> None:
        assert small(name).example()[name].tolist() == [1.0, 1.0]

    def test_text_in_the_example_stays_text(self) -> None:
        assert models.text().example()["word"].tolist() == ["yes", "größer"]

    def test_weights_lie_beside_a_large_model_and_are_covered_by_the_digest(self) -> None:
        bundle = models.linear(1500, 1500)
        assert {"model.onnx", "model.onnx.data"} == set(bundle.manifest.files)
        assert bundle.digest == models.linear(1500, 1500).digest
        (bundle.path / "model.onnx.data").write_bytes(b"")
        with pytest.raises(DamagedBundleError, match=r"model\.onnx\.data"):
            Bundle.open(bundle.path)

    def test_another_bundle_in_the_folder_stays(self, tmp_path: Path) -> None:
        kept = small(into=tmp_path / "here")
        with pytest.raises(ForeignBundleError, match="another bundle"):
            small(into=tmp_path / "here", scale=3.0)
        assert Bundle.open(tmp_path / "here") == kept

    @pytest.mark.parametrize("content", [b"{}", b'{"name": "a web page"}', b'{"format": 1}', None])
    def test_a_folder_of_the_users_is_never_touched(self, tmp_path: Path, content: bytes | None) -> None:
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "thesis.txt").write_text("years of work")
        if content is not None:
            (mine / "manifest.json").write_bytes(content)
        before = left(mine)
        with pytest.raises(ForeignBundleError):
            small(into=mine)
        assert left(mine) == before
        assert (mine / "thesis.txt").read_text() == "years of work"

    def test_a_file_of_the_users_is_never_touched(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("years of work")
        with pytest.raises(ForeignBundleError):
            small(into=tmp_path / "mine")
        assert (tmp_path / "mine").read_text() == "years of work"

    @pytest.mark.parametrize("moment", ["save_model", "_save_example", "file_entry", "settle"])
    def test_a_full_disk_leaves_nothing_behind(self, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store, moment, full)
        with pytest.raises(BundleError, match=r"No space left(.|\n)*Make room"):
            small()
        assert left(bundles_home()) == []


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_bundle_store import small
sys.stdin.readline()
for turn in range(25):
    small(reports=({"kind": sys.argv[2], "turn": turn},) if sys.argv[3] == "new" else ())
"""


@pytest.mark.parametrize("reports", ["same", "new"])
def test_several_processes_may_write_the_same_bundle_at_once(reports: str) -> None:
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, here, name, reports],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in "abc"
    ]  # fmt: skip
    # They start together; each message is read to its end, so none waits for another.
    answers: dict[int, str] = {}

    def finish(which: int) -> None:
        answers[which] = writers[which].communicate("go\n", timeout=60)[1]

    threads = [threading.Thread(target=finish, args=(which,)) for which in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.returncode for writer in writers] == [0, 0, 0], answers
    (found,) = bundles_home().iterdir()
    assert Bundle.open(found).digest == found.name


class TestOpening:
    @pytest.mark.parametrize("name", ["model.onnx", "example.npz", "manifest.json"])
    def test_a_changed_file_is_noticed(self, name: str) -> None:
        path = small().path / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises((DamagedBundleError, ForeignBundleError)):
            Bundle.open(path.parent)

    @pytest.mark.parametrize("name", ["model.onnx", "example.npz"])
    @pytest.mark.parametrize("verify", [True, False])
    def test_a_missing_or_shortened_file_is_noticed(self, name: str, verify: bool) -> None:
        bundle = small()
        path = bundle.path / name
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DamagedBundleError, match="not what the manifest says"):
            Bundle.open(bundle.path, verify=verify)
        path.unlink()
        with pytest.raises(DamagedBundleError, match=f"lacks the file '{name}'"):
            Bundle.open(bundle.path, verify=verify)

    @pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
    def test_a_link_out_of_the_folder_is_refused(self, name: str, tmp_path: Path) -> None:
        bundle = small()
        outside = tmp_path / "outside"
        (bundle.path / name).rename(outside)
        (bundle.path / name).symlink_to(outside)
        with pytest.raises(ForeignBundleError):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".", "", "a\0b"])
    def test_a_manifest_that_names_a_file_elsewhere_is_refused(self, name: str) -> None:
        bundle = small()
        manifest = bundle.manifest
        climbing = Manifest(
            manifest.signature,
            manifest.origin,
            manifest.lineage,
            {**manifest.files, name: manifest.files["model.onnx"]},
        )
        (bundle.path / "manifest.json").write_bytes(climbing.to_json())
        with pytest.raises((ForeignBundleError, DamagedBundleError)):
            Bundle.open(bundle.path)

    def test_a_folder_without_a_manifest_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ForeignBundleError, match=r"no manifest\.json"):
            Bundle.open(tmp_path)

    def test_a_manifest_without_a_model_is_none_of_a_bundle(self) -> None:
        bundle = small()
        manifest = bundle.manifest
        empty = Manifest(manifest.signature, manifest.origin, manifest.lineage, {})
        (bundle.path / "manifest.json").write_bytes(empty.to_json())
        with pytest.raises(ForeignBundleError, match=r"names no model\.onnx"):
            Bundle.open(bundle.path)


class TestExamples:
    @pytest.mark.parametrize("content", [b"", b"PK\3\4 rubbish", b"PK\5\6" + b"\xff" * 30, b"rubbish"])
    def test_one_that_cannot_be_read_is_damaged(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "example.npz").write_bytes(content)
        with pytest.raises(DamagedBundleError):
            store.read_example(tmp_path / "example.npz")

    def test_one_with_pickled_objects_is_refused_unread(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "example.npz", "w") as archive, archive.open("x.npy", "w") as file:
            np.lib.format.write_array(file, np.array([{}], object), allow_pickle=True)
        with pytest.raises(DamagedBundleError, match="allow_pickle"):
            store.read_example(tmp_path / "example.npz")

    def test_an_array_alone_is_no_example(self, tmp_path: Path) -> None:
        with (tmp_path / "example.npz").open("wb") as file:
            np.save(file, np.ones(2))
        with pytest.raises(DamagedBundleError):
            store.read_example(tmp_path / "example.npz")


def test_the_manifest_can_be_read_by_people() -> None:
    content = json.loads((small().path / "manifest.json").read_text())
    assert content["signature"]["inputs"][0]["shape"] == ["batch"]
