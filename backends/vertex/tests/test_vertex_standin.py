"""The stand-in is faithful: methods out of the library, Cloud Storage as Google's client asks it, limits, states."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as v1
from google.cloud import storage

from modelserve.backend import DeploymentSpec
from modelserve.runtime.fetch import fetch
from modelserve.standin.loopback import Answered
from modelserve.testing import models
from modelserve_vertex import VertexBackend
from modelserve_vertex.rehearsal import VertexRehearsal
from modelserve_vertex.rehearsal.methods import match, methods
from modelserve_vertex.rehearsal.pieces import begun

PARENT = "projects/demo/locations/europe-west4"
BUCKET = "demo-modelserve-europe-west4"
IMAGE = "europe-west4-docker.pkg.dev/demo/modelserve/modelserve:1"


@pytest.fixture
def bucket(rehearsal: VertexRehearsal) -> storage.Bucket:
    client = storage.Client(
        project="demo", credentials=AnonymousCredentials(), client_options={"api_endpoint": rehearsal.url}
    )
    return client.bucket(BUCKET)


@pytest.fixture
def endpoints(rehearsal: VertexRehearsal) -> v1.EndpointServiceClient:
    return v1.EndpointServiceClient(
        credentials=AnonymousCredentials(), transport="rest", client_options={"api_endpoint": rehearsal.url}
    )


def test_every_method_that_the_stand_in_answers_is_one_of_the_installed_library(rehearsal: VertexRehearsal) -> None:
    known = {method.name for method in methods().values()}
    answered = set(rehearsal.cloud._handlers) | {"Predict", "RawPredict"}
    assert answered <= known
    assert all(method.rules for method in methods().values() if method.name in answered)


def test_a_path_leads_to_its_method_with_its_fields() -> None:
    hit = match("GET", f"/v1/{PARENT}/endpoints/churn/operations/7")
    assert hit is not None
    assert (hit[0].name, hit[2]) == ("GetOperation", {"name": f"{PARENT}/endpoints/churn/operations/7"})
    assert match("GET", "/v1/nothing") is None


def test_storage_stores_what_googles_client_sends(bucket: storage.Bucket, tmp_path: Path) -> None:
    content = os.urandom(9 << 20)  # above the size from which the client uploads resumably
    (tmp_path / "large").write_bytes(content)
    bucket.blob("m/large").upload_from_filename(str(tmp_path / "large"), checksum="crc32c")
    chunked = bucket.blob("m/chunked", chunk_size=4 << 20)
    chunked.upload_from_filename(str(tmp_path / "large"))
    bucket.blob("m/small").upload_from_string(b"small")
    assert bucket.blob("m/large").download_as_bytes() == chunked.download_as_bytes() == content
    assert bucket.blob("m/large").download_as_bytes(start=10, end=19) == content[10:20]
    assert [blob.name for blob in bucket.list_blobs(prefix="m/")] == ["m/chunked", "m/large", "m/small"]
    assert bucket.get_blob("m/small").size == 5
    bucket.blob("m/small").delete()
    assert not bucket.blob("m/small").exists()
    with pytest.raises(google_errors.NotFound):
        bucket.blob("m/small").delete()


def test_storage_writes_over_nothing_that_must_be_absent(bucket: storage.Bucket) -> None:
    bucket.blob("once").upload_from_string(b"first", if_generation_match=0)
    with pytest.raises(google_errors.PreconditionFailed):
        bucket.blob("once").upload_from_string(b"second", if_generation_match=0)
    assert bucket.blob("once").download_as_bytes() == b"first"


def test_the_runtime_fetches_a_bundle_without_any_library_of_google(
    bucket: storage.Bucket, rehearsal: VertexRehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/model.onnx", "a/deep/er", "ab/no"):
        bucket.blob(name).upload_from_string(name.encode())
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", rehearsal.url)
    into = fetch(f"gs://{BUCKET}/a", tmp_path / "into")
    found = {str(path.relative_to(into)): path.read_text() for path in into.rglob("*") if path.is_file()}
    assert found == {"model.onnx": "a/model.onnx", "deep/er": "a/deep/er"}


def create(endpoints: v1.EndpointServiceClient, name: str, **fields: object) -> v1.Endpoint:
    request = {"parent": PARENT, "endpoint_id": name, "endpoint": {"display_name": name, **fields}}
    return endpoints.create_endpoint(request=request).result(timeout=30)


def test_a_stale_etag_is_refused(endpoints: v1.EndpointServiceClient) -> None:
    made = create(endpoints, "one")
    fresh = {"name": made.name, "etag": made.etag, "display_name": "one", "labels": {"a": "b"}}
    changed = endpoints.update_endpoint(endpoint=fresh, update_mask={"paths": ["labels"]})
    assert changed.etag != made.etag
    with pytest.raises(google_errors.Conflict) as refused:
        endpoints.update_endpoint(endpoint=fresh, update_mask={"paths": ["labels"]})
    assert refused.value.response.json()["error"]["status"] == "ABORTED"


def test_a_bad_request_is_refused_with_the_fields_path(endpoints: v1.EndpointServiceClient) -> None:
    with pytest.raises(google_errors.BadRequest, match="endpoint_id"):
        create(endpoints, "under_score")
    with pytest.raises(google_errors.Conflict, match="already exists"):
        create(endpoints, "twice") and create(endpoints, "twice")


def test_lists_are_filtered_by_label(endpoints: v1.EndpointServiceClient) -> None:
    create(endpoints, "one", labels={"team": "ml", "stage": "test"})
    create(endpoints, "two", labels={"team": "ml"})
    found = endpoints.list_endpoints(request={"parent": PARENT, "filter": 'labels.team="ml" AND labels.stage="test"'})
    assert [one.display_name for one in found] == ["one"]
    with pytest.raises(google_errors.BadRequest, match="filter"):
        list(endpoints.list_endpoints(request={"parent": PARENT, "filter": "nonsense ~ 1"}))


def test_nothing_is_predicted_without_a_deployed_model(
    endpoints: v1.EndpointServiceClient, rehearsal: VertexRehearsal
) -> None:
    made = create(endpoints, "empty")
    answer = httpx.post(f"{rehearsal.url}/v1/{made.name}:rawPredict", content=b"x")
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")


@pytest.mark.parametrize(("fields", "most"), [({}, 1_500_000), ({"dedicated_endpoint_enabled": True}, 10_000_000)])
def test_a_payload_above_the_kinds_limit_is_refused(
    endpoints: v1.EndpointServiceClient, rehearsal: VertexRehearsal, fields: dict[str, bool], most: int
) -> None:
    made = create(endpoints, "sized", **fields)
    headers = {"host": made.dedicated_endpoint_dns} if fields else {}
    answer = httpx.post(f"{rehearsal.url}/v1/{made.name}:rawPredict", content=bytes(most + 1), headers=headers)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert str(most) in answer.json()["error"]["message"]


def test_a_dedicated_endpoint_answers_under_its_own_name_only(
    endpoints: v1.EndpointServiceClient, rehearsal: VertexRehearsal
) -> None:
    made = create(endpoints, "own", dedicated_endpoint_enabled=True)
    assert made.dedicated_endpoint_dns.startswith("own.europe-west4-")
    answer = httpx.post(f"{rehearsal.url}/v1/{made.name}:rawPredict", content=b"x")
    assert "own name" in answer.json()["error"]["message"]


@pytest.mark.long
def test_answers_stream_from_dedicated_endpoints_only(
    endpoints: v1.EndpointServiceClient, rehearsal: VertexRehearsal
) -> None:
    bundle = models.linear()
    for kind in ("shared", "dedicated"):
        backend = VertexBackend({**rehearsal.options, "endpoint": kind})
        backend.deploy(bundle, DeploymentSpec(kind)).close()
    answers = {}
    for made in endpoints.list_endpoints(parent=PARENT):
        answers[made.display_name] = httpx.post(
            f"{rehearsal.url}/v1/{made.name}:streamRawPredict",
            json={"instances": [[1, 2, 3, 4]]},
            headers={"host": made.dedicated_endpoint_dns} if made.dedicated_endpoint_dns else {},
        )
    assert answers["dedicated"].json().keys() == {"predictions"}
    assert answers["dedicated"].headers["transfer-encoding"] == "chunked"
    assert answers["shared"].status_code == 400
    assert "dedicated endpoints only" in answers["shared"].json()["error"]["message"]


def test_a_streamed_answer_above_the_limit_is_refused_or_ends_there() -> None:
    with pytest.raises(google_errors.InvalidArgument, match="exceeds the limit: 10 bytes"):
        begun(Answered(200, headers={"content-length": "11"}, pieces=(piece for piece in [b"x" * 11])), 10)
    answered = begun(Answered(200, pieces=(piece for piece in [b"x" * 5, b"x" * 5, b"x"])), 10)
    assert answered.pieces is not None
    assert [next(answered.pieces) for _ in range(3)] == [b"xx", b"xxx", b"xxxxx"]
    with pytest.raises(google_errors.InvalidArgument, match="exceeds the limit: 10 bytes"):
        next(answered.pieces)


def test_the_shared_hosts_quota_of_requests_is_kept(
    endpoints: v1.EndpointServiceClient, rehearsal: VertexRehearsal
) -> None:
    made = create(endpoints, "busy")
    rehearsal.cloud.door.requests_per_minute = 2
    statuses = {httpx.post(f"{rehearsal.url}/v1/{made.name}:rawPredict", content=b"x").status_code for _ in range(6)}
    assert 429 in statuses
