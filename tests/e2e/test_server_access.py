"""Who may do what: keys, scopes, grants, rates, certificates; and that nothing is open by an oversight."""

from __future__ import annotations

import json
import logging
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelserve.errors import ConfigError, InputError
from modelserve.runtime.server.access import keys as keys_module
from modelserve.runtime.server.access.keys import KeyFile
from modelserve.runtime.server.access.rate import Rates
from modelserve.testing import models
from modelserve.testing.certificates import certificates
from modelserve.testing.serving import ServerThread, bundle_folder

ROW = b'{"instances":[[1,2,3,4]]}'
PREDICT = "/v1/models/a:predict"
UNLOAD = "/v2/repository/models/b/unload"


def ask(
    url: str, *, key: str = "", body: bytes | None = None, context: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, Any]:
    given = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if key:
        given["authorization"] = f"Bearer {key}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, given), timeout=30, context=context) as answer:
            return answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {**dict(error.headers), **json.loads(error.read())}


def described_models(url: str, key: str) -> set[str]:
    request = urllib.request.Request(f"{url}/openapi.json", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        paths = json.load(answer)["paths"]
    return {path.split("/")[3] for path in paths if path.endswith("/infer") and "{" not in path}


class Place:
    """A server that asks for keys, and some keys."""

    def __init__(self, server: ServerThread, keys: KeyFile) -> None:
        self.url = server.url
        self.keys = keys


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder = bundle_folder(tmp_path / "models", a=models.linear(), b=models.linear(seed=2))
    keys = KeyFile(tmp_path / "keys.json")
    monkeypatch.setattr(keys_module, "_CHECK_EVERY_S", 0.0)
    keys.create("first", scopes=["admin"])
    with ServerThread(models=folder, keys=keys.path) as server:
        yield Place(server, keys)


def test_without_a_key_only_health_answers(place: Place) -> None:
    assert ask(f"{place.url}/readyz")[0] == 200
    for path, body in ((PREDICT, ROW), (UNLOAD, b"{}"), ("/v2/models/stats", None), ("/invocations", ROW)):
        status, answer = ask(place.url + path, body=body)
        assert status == 401
        assert answer["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("bad", ["", "x", "msk_", "msk_00000000_x", "msk__", "Bearer", "msk_x_" + "y" * 5000, "\xff"])
def test_a_key_that_is_none_opens_nothing(place: Place, bad: str) -> None:
    assert ask(place.url + PREDICT, key=bad, body=ROW)[0] == 401
    assert ask(place.url + PREDICT, body=ROW, x_api_key=bad)[0] == 401


def test_the_id_of_a_key_opens_nothing_without_its_secret(place: Place) -> None:
    right, other = place.keys.create("one"), place.keys.create("two")
    wait_until_known(place, right)
    (_, id_of_one, secret), (_, _, secret_of_two) = right.split("_", 2), other.split("_", 2)
    for wrong in ("", secret[:-1], secret + "x", secret.swapcase(), secret_of_two):
        assert place.keys.recognise(f"msk_{id_of_one}_{wrong}") is None
        assert ask(place.url + PREDICT, key=f"msk_{id_of_one}_{wrong}", body=ROW)[0] == 401


def test_a_predict_key_predicts_and_never_administers(place: Place) -> None:
    key = place.keys.create("app")
    reaches(place, key, predict=200, unload=403, stats=403)


def test_a_metrics_key_only_looks(place: Place) -> None:
    reaches(place, place.keys.create("watch", scopes=["metrics"]), predict=403, unload=403, stats=200)


def test_an_admin_key_does_everything(place: Place) -> None:
    reaches(place, place.keys.create("boss", scopes=["admin"]), predict=200, unload=200, stats=200)


def reaches(place: Place, key: str, *, predict: int, unload: int, stats: int) -> None:
    wait_until_known(place, key)
    assert ask(place.url + PREDICT, key=key, body=ROW)[0] == predict
    assert ask(f"{place.url}/v2/models/stats", key=key)[0] == stats
    assert ask(place.url + UNLOAD, key=key, body=b"{}")[0] == unload


def wait_until_known(place: Place, key: str) -> None:
    """The file is looked at again every second."""
    import time

    end = time.monotonic() + 10
    while ask(f"{place.url}/v2/models/a", key=key)[0] == 401:
        assert time.monotonic() < end


def test_a_grant_holds_for_its_models_on_every_path(place: Place) -> None:
    key = place.keys.create("one", models=["a"])
    wait_until_known(place, key)
    assert ask(f"{place.url}/v1/models/a:predict", key=key, body=ROW)[0] == 200
    assert ask(f"{place.url}/invocations", key=key, body=ROW, x_modelserve_model="a")[0] == 200
    for path in ("/v1/models/b:predict", "/v2/models/b/infer", "/v2/models/b"):
        assert ask(place.url + path, key=key, body=ROW if path[-2:] != "/b" else None)[0] == 403
    assert ask(f"{place.url}/invocations", key=key, body=ROW, x_modelserve_model="b")[0] == 403


def test_the_description_names_no_model_that_was_not_granted(place: Place) -> None:
    one, every = place.keys.create("one", models=["a"]), place.keys.create("every")
    wait_until_known(place, every)
    assert described_models(place.url, every) == {"a", "b"}
    assert described_models(place.url, one) == {"a"}


def test_revoked_and_expired_keys_open_nothing(place: Place) -> None:
    key = place.keys.create("gone")
    wait_until_known(place, key)
    place.keys.revoke(key.split("_")[1])
    assert place.keys.recognise(key) is None
    brief = place.keys.create("brief", lifetime_s=1e-6)
    assert place.keys.recognise(brief) is None
    assert ask(place.url + PREDICT, key=brief, body=ROW)[0] == 401


def test_a_rate_is_kept_and_says_when_to_come_again(place: Place) -> None:
    key = place.keys.create("slow", rate_per_s=0.001)
    wait_until_known(place, key)
    status, answer = ask(place.url + PREDICT, key=key, body=ROW)
    assert status == 429
    assert int(answer["retry-after"]) > 100


def test_a_bucket_fills_steadily() -> None:
    rates = Rates()
    assert [rates.wait_s("a", 2.0, now) for now in (0.0, 0.0)] == [0.0, 0.0]
    assert rates.wait_s("a", 2.0, 0.0) == pytest.approx(0.5)
    assert rates.wait_s("b", 2.0, 0.0) == 0.0
    assert rates.wait_s("a", 2.0, 0.5) == 0.0


def test_at_rest_there_are_only_hashes_for_the_owner_alone(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "deep" / "keys.json")
    key = keys.create("app")
    secret = key.split("_", 2)[2]
    assert secret not in keys.path.read_text()
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert list(keys.path.parent.iterdir()) == [keys.path]
    keys.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyFile(keys.path)


@pytest.mark.parametrize("content", ["junk", "{}", '{"keys": [1]}', '{"keys": [{"id": "x"}]}'])
def test_a_file_of_keys_that_is_none_is_refused_and_opens_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be read"):
        KeyFile(path)


def test_keys_are_made_by_what_there_is(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    for bad in ({"scopes": ["everything"]}, {"scopes": []}, {"lifetime_s": -1}):
        with pytest.raises(InputError):
            keys.create("x", **bad)
    with pytest.raises(InputError, match="no key"):
        keys.revoke("nobody")
    assert not keys.path.exists()


def test_what_is_denied_or_administered_is_recorded_without_its_content(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    key = place.keys.create("app")
    wait_until_known(place, key)
    with caplog.at_level(logging.INFO, "modelserve.audit"):
        ask(place.url + UNLOAD, key=key, body=b'{"very": "private"}', x_request_id="r-1")
    (record,) = [record for record in caplog.records if record.name == "modelserve.audit"]
    assert (record.message, record.status, record.request_id) == ("denied", 403, "r-1")  # type: ignore[attr-defined]
    assert record.caller.endswith(":app")  # type: ignore[attr-defined]
    assert "private" not in str(vars(record))
    assert key not in str(vars(record))


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}, {"origin": "null"}])
def test_web_pages_of_other_sites_ask_in_vain(headers: dict[str, str]) -> None:
    with ServerThread(model=models.linear().path) as server:
        assert ask(f"{server.url}/v2/repository/models/model/unload", body=b"", **headers)[0] == 403
        assert ask(f"{server.url}/invocations", body=ROW, origin=server.url)[0] == 200


def test_tls_and_certificates_of_clients(tmp_path: Path) -> None:
    ca, server_pair, client_pair = certificates(tmp_path)
    settings = {"tls_certificate": server_pair[0], "tls_key": server_pair[1], "tls_client_ca": ca}
    with ServerThread(model=models.linear().path, **settings) as server:
        known = ssl.create_default_context(cafile=str(ca))
        known.load_cert_chain(*client_pair)
        url = f"https://localhost:{server.server.port}/invocations"
        assert ask(url, body=ROW, context=known)[0] == 200
        large = json.dumps({"instances": [[1, 2, 3, 4]] * 20_000}).encode()
        assert ask(url, body=large, context=known)[0] == 200
        stranger = ssl.create_default_context(cafile=str(ca))
        with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
            ask(url, body=ROW, context=stranger)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask(url.replace("https", "http"), body=ROW)
        assert server.call(server.server.reload()) == []
