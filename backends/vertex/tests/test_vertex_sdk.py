"""Google's own clients see what the backend deployed: the high-level SDK, and the GAPIC clients over gRPC."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.api import httpbody_pb2
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import DeploymentSpec, JobState, WorkPart
from modelserve.backend.oip import sized_reply, sized_request
from modelserve.session import Session
from modelserve.standin.faults import BrokenOff, Switches
from modelserve.testing import models
from modelserve.wire import decode, encode_request, reply_layout
from modelserve_vertex import VertexBackend
from modelserve_vertex.rehearsal import VertexRehearsal
from modelserve_vertex.rehearsal.grpc_front import GrpcServer

PARENT = "projects/demo/locations/europe-west4"
ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def shared() -> Iterator[VertexRehearsal]:
    """A rehearsal of the only kind of endpoint that the high-level SDK reaches at a stand-in."""
    options = {"project": "demo", "region": "europe-west4", "workers": 1, "endpoint": "shared"}
    with VertexBackend(options).rehearsal() as found:
        assert isinstance(found, VertexRehearsal)
        yield found


def wanted() -> list[list[float]]:
    bundle = models.linear()
    return Session(bundle).run({"x": ROWS})["y"].tolist()


def test_the_high_level_sdk_predicts_and_lists_what_the_backend_deployed(shared: VertexRehearsal) -> None:
    shared.backend.deploy(models.linear(), DeploymentSpec("churn")).close()
    aiplatform.init(
        project="demo",
        location="europe-west4",
        credentials=AnonymousCredentials(),
        api_endpoint=shared.url,
        api_transport="rest",
    )
    endpoint = aiplatform.Endpoint("churn")
    answer = endpoint.predict(instances=ROWS.tolist())
    np.testing.assert_allclose(answer.predictions, wanted(), rtol=1e-6)
    assert answer.deployed_model_id == endpoint.list_models()[0].id
    listed = aiplatform.Endpoint.list(filter='labels.modelserve-deployment="churn"')
    assert [one.resource_name for one in listed] == [f"{PARENT}/endpoints/churn"]
    (model,) = aiplatform.Model.list(filter='labels.modelserve-made-by="modelserve"')
    assert model.resource_name.startswith(f"{PARENT}/models/churn-")


@pytest.mark.long
def test_the_high_level_sdk_predicts_in_batches_with_the_model_that_the_backend_registered(
    rehearsal: VertexRehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn")).close()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", rehearsal.url)  # the SDK makes its storage client itself
    rehearsal.cloud.objects.put("demo-modelserve-europe-west4", "in/rows.jsonl", _lines(ROWS.tolist() * 40))
    aiplatform.init(
        project="demo",
        location="europe-west4",
        credentials=AnonymousCredentials(),
        api_endpoint=rehearsal.url,
        api_transport="rest",
    )
    (model,) = aiplatform.Model.list(filter='labels.modelserve-deployment="churn"')
    job = model.batch_predict(
        job_display_name="theirs",
        gcs_source="gs://demo-modelserve-europe-west4/in/*.jsonl",
        gcs_destination_prefix="gs://demo-modelserve-europe-west4/out",
        machine_type="n1-standard-2",
        batch_size=32,
    )
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (80, 0)
    results = [blob for blob in job.iter_outputs() if "prediction.results" in blob.name]
    found = [json.loads(line) for blob in results for line in blob.download_as_text().splitlines()]
    answers = {json.dumps(one["instance"]): one["prediction"] for one in found}
    assert (len(found), len(answers)) == (80, 2)
    np.testing.assert_allclose([answers[json.dumps(row)] for row in ROWS.tolist()], wanted(), rtol=1e-6)
    job.delete()
    assert rehearsal.cloud.jobs.all == []


def _lines(rows: list[list[float]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


@pytest.mark.long
def test_the_job_client_over_grpc_sees_cancels_and_deletes_what_the_backend_began(rehearsal: VertexRehearsal) -> None:
    endpoint = rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn"))
    rehearsal.cloud.faults.switches = Switches(never_healthy=True)
    line = b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n'
    work = endpoint.batch("some-work", [WorkPart(0, line)])
    with GrpcServer(rehearsal.cloud) as server, grpc.insecure_channel(server.address) as channel:
        kind = v1.JobServiceClient
        jobs = kind(transport=kind.get_transport_class("grpc")(channel=channel))
        (job,) = jobs.list_batch_prediction_jobs(request={"parent": PARENT, "filter": 'display_name="churn-some-work"'})
        assert job.state == v1.JobState.JOB_STATE_PENDING
        with pytest.raises(google_errors.FailedPrecondition, match="Cancel it"):
            jobs.delete_batch_prediction_job(name=job.name)
        with pytest.raises(google_errors.FailedPrecondition, match="is deployed or being deployed"):
            v1.ModelServiceClient(
                transport=v1.ModelServiceClient.get_transport_class("grpc")(channel=channel)
            ).delete_model(name=job.model)
        jobs.cancel_batch_prediction_job(name=job.name)
        deadline = time.monotonic() + 30
        while jobs.get_batch_prediction_job(name=job.name).state != v1.JobState.JOB_STATE_CANCELLED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert work.status() == (JobState.FAILED, "", "The job was cancelled.")
        jobs.delete_batch_prediction_job(name=job.name).result(timeout=30)
        with pytest.raises(google_errors.NotFound):
            jobs.get_batch_prediction_job(name=job.name)
    work.delete()
    assert not [name for name in rehearsal.leftovers() if "/jobs/" in name]


@pytest.mark.long
def test_the_clients_over_grpc_predict_scale_and_delete_what_the_backend_deployed(rehearsal: VertexRehearsal) -> None:
    rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn")).close()
    with GrpcServer(rehearsal.cloud) as server, grpc.insecure_channel(server.address) as channel:
        endpoints, registry, asking = (
            kind(transport=kind.get_transport_class("grpc")(channel=channel))
            for kind in (v1.EndpointServiceClient, v1.ModelServiceClient, v1.PredictionServiceClient)
        )
        name = f"{PARENT}/endpoints/churn"
        found = endpoints.get_endpoint(name=name)
        (deployed,) = found.deployed_models
        assert dict(found.traffic_split) == {deployed.id: 100}

        media_type, body = sized_request(encode_request({"x": ROWS}), "y")
        metadata = [("x-vertex-ai-endpoint-id", "churn")]
        answer = asking.raw_predict(
            request={"endpoint": name, "http_body": httpbody_pb2.HttpBody(content_type=media_type, data=body)},
            metadata=metadata,
        )
        reply = sized_reply(answer.content_type, answer.data)
        assert decode(reply_layout(reply.header), reply.body)["y"].tolist() == wanted()
        with pytest.raises(google_errors.FailedPrecondition, match="under its own name"):
            asking.raw_predict(request={"endpoint": name, "http_body": httpbody_pb2.HttpBody(data=body)})

        two = v1.DeployedModel(id=deployed.id, dedicated_resources={"min_replica_count": 2, "max_replica_count": 2})
        paths = ["dedicated_resources.min_replica_count", "dedicated_resources.max_replica_count"]
        changed = endpoints.mutate_deployed_model(endpoint=name, deployed_model=two, update_mask={"paths": paths})
        changed.result(timeout=60)
        assert len(rehearsal.backend.attach("churn").status().replicas) == 2

        endpoints.undeploy_model(endpoint=name, deployed_model_id=deployed.id, traffic_split={}).result(timeout=60)
        endpoints.delete_endpoint(name=name).result(timeout=60)
        registry.delete_model(name=deployed.model).result(timeout=60)
    assert [one for one in rehearsal.leftovers() if not one.startswith("gs://demo-")] == []
    (left,) = rehearsal.backend.list()
    assert left.message.startswith("Left behind: bundles")
    rehearsal.backend.delete("churn")
    assert rehearsal.leftovers() == []


@pytest.mark.long
def test_the_client_over_grpc_takes_a_streamed_answer_piece_by_piece(rehearsal: VertexRehearsal) -> None:
    rehearsal.backend.deploy(models.linear(), DeploymentSpec("churn")).close()
    name = f"{PARENT}/endpoints/churn"
    with GrpcServer(rehearsal.cloud) as server, grpc.insecure_channel(server.address) as channel:
        kind = v1.PredictionServiceClient
        client = kind(transport=kind.get_transport_class("grpc")(channel=channel))

        def asked(method: Callable[..., Any], media_type: str, body: bytes) -> Any:
            http_body = httpbody_pb2.HttpBody(content_type=media_type, data=body)
            request = {"endpoint": name, "http_body": http_body}
            return method(request=request, metadata=[("x-vertex-ai-endpoint-id", "churn")])

        for rows in (2, 20_000):
            question = sized_request(encode_request({"x": np.resize(ROWS, (rows, 4))}), "y")
            whole = asked(client.raw_predict, *question)
            pieces = list(asked(client.stream_raw_predict, *question))
            assert len(pieces) > (1 if rows == 2 else len(whole.data) // (128 << 10))
            assert max(len(piece.data) for piece in pieces) < len(whole.data)
            assert {piece.content_type for piece in pieces} == {whole.content_type}
            replies = [
                sized_reply(whole.content_type, data) for data in (whole.data, b"".join(piece.data for piece in pieces))
            ]
            # Their headers differ in the request's id.
            assert reply_layout(replies[0].header) == reply_layout(replies[1].header)
            assert replies[0].body == replies[1].body

        rehearsal.cloud.faults.plan("StreamRawPredict", BrokenOff())
        coming = asked(client.stream_raw_predict, *question)
        assert next(coming).data
        with pytest.raises(google_errors.ServiceUnavailable, match="broke off"):
            next(coming)
        with pytest.raises(google_errors.InvalidArgument, match="header"):
            list(asked(client.stream_raw_predict, question[0], b"no request"))
