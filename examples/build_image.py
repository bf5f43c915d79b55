"""The runtime's container image without Docker: built, pushed to a registry, found there again, written to a folder.

    python examples/build_image.py [FOLDER]

The registry is one on this machine, and so is the base, this machine's own Python, so that no account is needed; with
a real one only `repository`, `recipe` and `credentials=` are others. The wheels come from the package index.
"""

import platform
import sys
import tempfile
from pathlib import Path

from modelserve import image
from modelserve.standin.registry import RegistryStandIn, put_this_python

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()) / "runtime.oci"
architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]

with RegistryStandIn() as registry:
    put_this_python(registry, "library/python", "3")
    base = image.Reference(registry.address, "library/python", "3")
    recipe = image.Recipe(platform=image.Platform(architecture), base=base)
    repository = f"{registry.address}/team/modelserve"

    print(f"there before  {image.find(repository, recipe)}")
    reference = image.ensure(repository, recipe, on_progress=print)
    print(f"pushed        {reference.repository}@{reference.digest}")
    assert image.find(repository, recipe) == reference  # whoever asks again makes nothing

    made = image.build(recipe)  # from what the first build kept: the same bytes
    image.write_layout(made, folder)
    print(f"the same      {made.digest == reference.digest}")
    print(f"called        {made.tag}")
    print(f"in it         {', '.join(sorted(name for name, _ in made.packages))}")
    print(f"folder        {folder}")
