"""Write the picture of the status page that the docs show: python tests/e2e/write_screenshot.py PATH [--dark]."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

_SECONDS = 60


def main() -> None:
    """Serve two models, ask them for a while, and look."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--docs", action="store_true")
    chosen = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        bundle_folder(Path(folder), digits=models.mlp(), prices=models.linear())
        with ServerThread(models=Path(folder), workers=2) as server:
            asking = threading.Thread(target=_ask, args=(server.url,))
            asking.start()
            time.sleep(_SECONDS - 6)
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(
                viewport={"width": 1040, "height": 900}, color_scheme="dark" if chosen.dark else "light"
            )
            page.goto(f"{server.url}/docs" if chosen.docs else server.url)
            if not chosen.docs:
                page.get_by_role("button", name="Predict").first.click()
                page.wait_for_selector("#answer pre")
            page.screenshot(path=chosen.path, full_page=True)
            browser.close()
            asking.join()


def _ask(url: str) -> None:
    """Callers come and go, as they do."""
    end = time.monotonic() + _SECONDS
    bodies = {
        "digits": json.dumps({"instances": [[0.5] * 8]}).encode(),
        "prices": json.dumps({"instances": [[1, 2, 3, 4]]}).encode(),
    }

    def ask(name: str, seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            for _ in range(chance.randint(1, 30)):
                urllib.request.urlopen(f"{url}/v1/models/{name}:predict", bodies[name], timeout=20).close()
            time.sleep(chance.random())

    threads = [threading.Thread(target=ask, args=(name, seed)) for seed, name in enumerate(("digits", "prices") * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
