"""The example of the runtime's image runs, and what it wrote is an image."""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelserve import image

EXAMPLE = Path(__file__).parents[2] / "examples" / "build_image.py"


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="its base is made of this Linux machine's Python")
def test_an_image_is_built_pushed_found_again_and_written_to_a_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, tmp_path], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^(there before|pushed|the same|called|in it|folder) +(.+)$", done.stdout, re.MULTILINE))
    assert (said["there before"], said["the same"]) == ("None", "True")
    assert "onnxruntime" in said["in it"]
    repository, _, digest = said["pushed"].partition("@")
    assert repository == "team/modelserve"
    folder = Path(said["folder"])
    (listed,) = json.loads((folder / "index.json").read_text())["manifests"]
    assert listed["digest"] == digest
    manifest = json.loads((folder / "blobs" / digest.replace(":", "/")).read_text())
    config = json.loads((folder / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    assert config["config"]["Entrypoint"] == ["python", "-m", "modelserve.runtime"]
    assert (
        config["architecture"]
        == image.Platform({"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]).architecture
    )
    assert said["called"].split("-")[1] == config["architecture"]
