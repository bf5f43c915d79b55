"""Google's own clients see what the backend deployed: the high-level SDK, and the GAPIC clients over gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.api import httpbody_pb2
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import DeploymentSpec
from modelserve.backend.oip import sized_reply, sized_request
from modelserve.session import Session
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
