"""The pages for people, as a browser shows them and as a browser without JavaScript does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserve.runtime.server.access.keys import KeyFile
from modelserve.runtime.server.pages import sparkline
from modelserve.testing import models
from modelserve.testing.serving import ServerThread, bundle_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    folder = bundle_folder(tmp_path / "models", digits=models.mlp(), linear=models.linear(), two=models.two_inputs())
    with ServerThread(models=folder) as running:
        yield running


def get(url: str, key: str = "", form: dict[str, str] | None = None, **headers: str) -> tuple[int, str, Any]:
    if key:
        headers["authorization"] = "Basic " + base64.b64encode(f"me:{key}".encode()).decode()
    body = None if form is None else urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def test_the_page_shows_models_workers_and_a_form_for_each(server: ServerThread) -> None:
    status, page, headers = get(f"{server.url}/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "'unsafe-inline'" not in headers["content-security-policy"]
    for name in ("digits", "linear", "two"):
        assert f'name="model" value="{name}"' in page
    (worker,) = server.server.repository.find("digits").status().workers
    assert f"<td>{worker.pid}</td>" in page
    for reference in re.findall(r'(?:src|href)="(/pages/[^"]+)"', page):
        assert get(f"{server.url}{reference}")[0] == 200


@pytest.mark.parametrize("name", ["digits", "linear", "two"])
def test_the_example_in_a_form_is_answered(server: ServerThread, name: str) -> None:
    _, page, _ = get(f"{server.url}/")
    (text,) = re.findall(rf'value="{name}">.*?<textarea[^>]*>(.*?)</textarea>', page, re.DOTALL)
    form = {"model": name, "instances": text.replace("&#34;", '"')}
    status, answered, _ = get(f"{server.url}/", form=form)
    assert status == 200
    assert re.search(r'<output id="answer" class="good">\s*<pre>[^<]+</pre>', answered)


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({"model": "linear", "instances": "[[1, 2]]"}, 400, "axis 1 must be 4"),
        ({"model": "linear", "instances": "<script>alert(1)</script>"}, 400, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ({"model": "linear"}, 400, "linear"),
        ({"model": "nobody", "instances": "[[1]]"}, 404, "linear"),
        ({}, 404, "linear"),
    ],
)
def test_what_does_not_fit_is_said_on_the_page_and_escaped(
    server: ServerThread, form: dict[str, str], status: int, said: str
) -> None:
    found, page, _ = get(f"{server.url}/", form=form)
    assert found == status
    assert said in page
    assert "<script>alert" not in page


def test_a_key_is_asked_for_and_sees_what_it_was_granted(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    mine = keys.create("mine", models=("a",))
    measuring = keys.create("measuring", scopes=("predict", "metrics"))
    folder = bundle_folder(tmp_path / "models", a=models.linear(seed=1), b=models.linear(seed=2))
    with ServerThread(models=folder, keys=keys.path) as running:
        status, _, headers = get(f"{running.url}/")
        assert status == 401
        assert headers["www-authenticate"].startswith("Basic")
        status, page, _ = get(f"{running.url}/", mine)
        assert status == 200
        assert 'value="a"' in page
        assert 'value="b"' not in page
        assert "Worker" not in page
        assert "Worker" in get(f"{running.url}/", measuring)[1]
        assert get(f"{running.url}/", mine, {"model": "a", "instances": "[[1,2,3,4]]"})[0] == 200
        assert get(f"{running.url}/", mine, {"model": "b", "instances": "[[1,2,3,4]]"})[0] == 403
        assert get(f"{running.url}/", mine, {"model": "a", "instances": "[]"}, origin="https://evil.example")[0] == 403
        docs = get(f"{running.url}/docs", mine)[1]
        assert "/v1/models/a:predict" in docs
        assert "/v1/models/b:predict" not in docs
        assert "/v2/repository" not in docs


def test_the_docs_examples_are_answered(server: ServerThread) -> None:
    _, page, _ = get(f"{server.url}/docs")
    found = re.findall(r"curl (\S+) \\\s+-d &#39;(.*?)&#39;</pre>", page)
    found = found or re.findall(r"curl (\S+) \\\s+-d '(.*?)'</pre>", page)
    assert len(found) == 3
    for url, body in found:
        text = body.replace("&#34;", '"')
        request = urllib.request.Request(url, text.encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.loads(answer.read())["predictions"]
    programs = re.findall(r"<pre>(import numpy.*?)</pre>", page, re.DOTALL)
    for program in programs:
        exec(program.replace("&#34;", '"').replace("&#39;", "'"), {})


def test_numbers_become_lines_and_a_gap_where_there_is_none() -> None:
    assert sparkline.points([0.0, 1.0, None, 2.0], 4) == ["0.0,34.0 60.0,18.0", "180.0,2.0 180.0,2.0"]
    assert sparkline.points([], 4) == []
    assert sparkline.points([0.0, 0.0], 2) == ["0.0,34.0 180.0,34.0"]


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("There is no Chromium here.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.mark.long
@pytest.mark.parametrize("javascript", [True, False])
def test_a_person_tries_a_prediction_in_a_browser(server: ServerThread, browser: Any, javascript: bool) -> None:
    page = browser.new_context(java_script_enabled=javascript).new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.goto(server.url)
    assert page.locator(".state").inner_text().startswith("Ready")
    form = page.locator("form", has=page.locator("input[value=linear]"))
    form.locator("textarea").fill("[[1, 2, 3, 4], [5, 6, 7, 8]]")
    form.get_by_role("button", name="Predict").click()
    page.wait_for_selector("#answer pre")
    assert len(page.locator("#answer pre").inner_text().splitlines()) == 2
    page.goto(f"{server.url}/docs")
    assert page.get_by_text("By the Open Inference Protocol").first.is_visible()
    assert faults == []


@pytest.mark.long
def test_the_page_is_live_and_keeps_what_was_typed(server: ServerThread, browser: Any) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    page.goto(server.url)
    text = page.locator("form", has=page.locator("input[value=linear]")).locator("textarea")
    text.fill("half a line")
    section = page.locator("section.model", has_text="linear")
    assert section.locator("dd").first.inner_text() == "0"
    for _ in range(5):
        get(f"{server.url}/", form={"model": "linear", "instances": "[[1,2,3,4]]"})
    expect(section.locator("dd").first).to_have_text("5", timeout=15_000)
    expect(section.locator("polyline").first).to_be_attached(timeout=15_000)
    assert text.input_value() == "half a line"
