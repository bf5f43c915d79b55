"""Requests: what the backend sends keeps the rules, and what breaks one is refused with the field's path."""

from __future__ import annotations

from typing import Any

import pytest
from google.cloud import aiplatform_v1 as v1

from modelserve.backend import Scale
from modelserve.errors import NotSupportedError
from modelserve_vertex import names, requests, traffic
from modelserve_vertex.options import VertexOptions
from modelserve_vertex.recipe import Recipe
from modelserve_vertex.validation import check
from modelserve_vertex.validation.behaviours import PACKAGE, output_only, required, resource_patterns

PARENT = "projects/p/locations/europe-west4"
ENDPOINT, MODEL = f"{PARENT}/endpoints/1", f"{PARENT}/models/1"
IMAGE = "europe-west4-docker.pkg.dev/p/modelserve/modelserve:1"
DIGEST = "0123456789abcdef" * 4


def recipe(**options: Any) -> Recipe:
    chosen = VertexOptions(region="europe-west4", **options)
    return Recipe("churn", DIGEST, PARENT, IMAGE, f"gs://b/modelserve/churn/{DIGEST}", chosen)


KEY = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
ACCOUNT = "a@p.iam.gserviceaccount.com"
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "shared": {"endpoint": "shared"},
    "private service connect": {"endpoint": "psc", "psc_projects": ["other"]},
    "private": {"endpoint": "private", "network": "projects/1/global/networks/n"},
    "accelerator": {"machine_type": "g2-standard-4", "accelerator_type": "NVIDIA_L4", "spot": True},
    "key, account, labels": {
        "kms_key": KEY,
        "service_account": "a@p.iam.gserviceaccount.com",
        "labels": {"team": "ml"},
    },
    "logs": {"request_log_table": "bq://p.d.t", "access_logging": True, "container_logging": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_the_backend_sends_keeps_every_rule(options: dict[str, Any]) -> None:
    made = recipe(**options)
    scale = Scale(1, 3, target_cpu=0.6)
    endpoint = v1.Endpoint(name=ENDPOINT, etag="e", display_name="churn")
    sent = [
        requests.upload_model(made),
        requests.create_endpoint(made),
        requests.deploy_model(made.endpoint, made.model, made.options, scale, traffic.first(0, {})),
        requests.mutate_replicas(made.endpoint, made.deployed_id, Scale.fixed(2)),
        requests.move_traffic(endpoint, traffic.all_to("1"), made.labels),
        requests.undeploy_model(made.endpoint, "1", {}),
        requests.batch_job(
            PARENT,
            made.options,
            model=v1.Model(name=MODEL),
            display_name="churn-work",
            labels=made.labels | names.job_labels("work", "0" * 32),
            input_uri="gs://b/in/*.jsonl",
            output_uri="gs://b/out",
            batch_rows=64,
        ),
    ]
    assert [str(violation) for request in sent for violation in check(request)] == []


def upload(*, model_id: str = "", parent: str = PARENT, **fields: Any) -> v1.UploadModelRequest:
    model = {"display_name": "m", "container_spec": {"image_uri": IMAGE}, **fields}
    return v1.UploadModelRequest(parent=parent, model_id=model_id, model=model)


def create(endpoint_id: str = "", **fields: Any) -> v1.CreateEndpointRequest:
    return v1.CreateEndpointRequest(parent=PARENT, endpoint_id=endpoint_id, endpoint={"display_name": "e", **fields})


GOOD = {"machine_spec": {"machine_type": "n1-standard-2"}, "min_replica_count": 1, "max_replica_count": 1}


def deploy(split: dict[str, int] | None = None, *, model: str = MODEL, **resources: Any) -> v1.DeployModelRequest:
    deployed = {"model": model, "dedicated_resources": {**GOOD, **resources}}
    return v1.DeployModelRequest(endpoint=ENDPOINT, deployed_model=deployed, traffic_split=split or {"0": 100})


def machine(**spec: Any) -> v1.DeployModelRequest:
    return deploy(machine_spec=spec)


def mutate(*paths: str, **resources: Any) -> v1.MutateDeployedModelRequest:
    deployed = {"id": "1", "dedicated_resources": resources}
    return v1.MutateDeployedModelRequest(endpoint=ENDPOINT, deployed_model=deployed, update_mask={"paths": list(paths)})


def batch(**fields: Any) -> v1.CreateBatchPredictionJobRequest:
    job = {
        "display_name": "b",
        "model": MODEL,
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://b/in/*"]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://b/out"}},
        "dedicated_resources": {"machine_spec": {"machine_type": "n1-standard-2"}},
        **fields,
    }
    return v1.CreateBatchPredictionJobRequest(parent=PARENT, batch_prediction_job=job)


IN_XML = {"instances_format": "xml", "gcs_source": {"uris": ["gs://b/in"]}}
FROM_S3 = {"instances_format": "jsonl", "gcs_source": {"uris": ["s3://b/in"]}}

BAD: dict[str, tuple[Any, str]] = {
    "no display name": (upload(display_name=""), "model.display_name"),
    "a parent that is no location": (upload(parent="europe-west4"), "parent"),
    "an image on another registry": (upload(container_spec={"image_uri": "python:3.12"}), "image_uri"),
    "a container without an image": (upload(container_spec={"predict_route": "/p"}), "image_uri"),
    "files of another cloud": (upload(artifact_uri="s3://b/x"), "artifact_uri"),
    "too long a display name": (upload(display_name="x" * 129), "display_name"),
    "a label in capitals": (upload(labels={"Team": "ML"}), "labels"),
    "65 labels": (upload(labels={f"l{number}": "" for number in range(65)}), "labels"),
    "a field that the service writes": (upload(create_time="2026-01-01T00:00:00Z"), "create_time"),
    "a reserved variable": (upload(container_spec={"image_uri": IMAGE, "env": [{"name": "AIP_X"}]}), "env"),
    "a route without a slash": (upload(container_spec={"image_uri": IMAGE, "health_route": "ping"}), "health_route"),
    "a model id from a digit on": (upload(model_id="9x"), "model_id"),
    "an endpoint id with an underscore": (create("my_endpoint"), "endpoint_id"),
    "an endpoint without a name": (create(display_name=""), "display_name"),
    "a key of another region": (create(encryption_spec={"kms_key_name": KEY.replace("europe", "us")}), "kms_key_name"),
    "a time-out where it is fixed": (
        create(client_connection_config={"inference_timeout": {"seconds": 300}}),
        "inference_timeout",
    ),
    "two kinds of private": (
        create(network="n", private_service_connect_config={"enable_private_service_connect": True}),
        "network",
    ),
    "no resources": (v1.DeployModelRequest(endpoint=ENDPOINT, deployed_model={"model": MODEL}), "deployed_model"),
    "no machine": (deploy(machine_spec=None), "machine_spec"),
    "no replica": (deploy(min_replica_count=0), "min_replica_count"),
    "a maximum below the minimum": (deploy(min_replica_count=3, max_replica_count=1), "max_replica_count"),
    "a split of 90": (deploy({"0": 90}), "traffic_split"),
    "an unknown metric": (deploy(autoscaling_metric_specs=[{"metric_name": "cpu", "target": 60}]), "metric_name"),
    "an accelerator on E2": (
        machine(machine_type="e2-standard-4", accelerator_type="NVIDIA_TESLA_T4", accelerator_count=1),
        "accelerator_type",
    ),
    "an accelerator without a number": (
        machine(machine_type="n1-standard-4", accelerator_type="NVIDIA_TESLA_T4"),
        "accelerator_count",
    ),
    "a machine of another cloud": (machine(machine_type="ml.m5.large"), "machine_type"),
    "a machine that is too small": (machine(machine_type="n1-standard-1"), "machine_type"),
    "a model by its short name": (deploy(model="my-model"), "deployed_model.model"),
    "an empty mask": (mutate(), "update_mask"),
    "a mask with a typing error": (mutate("dedicated_resources.min_replicas"), "update_mask"),
    "a mask of what cannot change": (mutate("dedicated_resources.machine_spec"), "update_mask"),
    "an update without a mask": (v1.UpdateEndpointRequest(endpoint={"name": ENDPOINT}), "update_mask"),
    "an endpoint by its short name": (v1.GetEndpointRequest(name="123"), "name"),
    "a batch job without a name": (batch(display_name=""), "display_name"),
    "a batch job without a model": (batch(model=""), "model"),
    "a batch job on a model's short name": (batch(model="m"), "batch_prediction_job.model"),
    "a batch job without input": (batch(input_config={"instances_format": "jsonl"}), "input_config"),
    "a batch job without output": (batch(output_config={"predictions_format": "jsonl"}), "output_config"),
    "a batch job over another cloud's files": (batch(input_config=FROM_S3), "batch_prediction_job"),
    "a batch job in an unknown format": (batch(input_config=IN_XML), "instances_format"),
    "a batch job on no machine of Google's": (
        batch(dedicated_resources={"machine_spec": {"machine_type": "ml.m5.large"}}),
        "machine_type",
    ),
    "a batch job with more replicas than its most": (
        batch(
            dedicated_resources={
                "machine_spec": {"machine_type": "n1-standard-2"},
                "starting_replica_count": 3,
                "max_replica_count": 2,
            }
        ),
        "starting_replica_count",
    ),
    "a batch job's state from outside": (batch(state="JOB_STATE_SUCCEEDED"), "state"),
    "a batch size without machines": (
        batch(dedicated_resources=None, manual_batch_tuning_parameters={"batch_size": 9}),
        "manual_batch_tuning_parameters",
    ),
    "a job by its short name": (v1.GetBatchPredictionJobRequest(name="123"), "name"),
    "traffic for what is not deployed": (
        v1.UndeployModelRequest(endpoint=ENDPOINT, deployed_model_id="1", traffic_split={"0": 100}),
        "traffic_split",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "path"), BAD.values(), ids=BAD)
def test_what_the_service_would_refuse_is_refused_with_its_path(request_: Any, path: str) -> None:
    assert [violation for violation in check(request_) if path in violation.path], check(request_)


def test_behaviours_are_read_from_the_installed_library() -> None:
    assert required(f"{PACKAGE}UploadModelRequest") == ["parent", "model"]
    assert "image_uri" in required(f"{PACKAGE}ModelContainerSpec")
    assert {"create_time", "deployed_models", "dedicated_endpoint_dns"} <= set(output_only(f"{PACKAGE}Endpoint"))
    assert resource_patterns()["model"].fullmatch(MODEL)


def test_the_same_deployment_has_the_same_names_and_another_machine_another_deployed_model() -> None:
    assert recipe().model_id == recipe().model_id != recipe(environment={"A": "1"}).model_id
    assert recipe().deployed_id == recipe(labels={"a": "b"}).deployed_id
    assert recipe().deployed_id != recipe(machine_type="n1-standard-4").deployed_id
    assert len(recipe().deployed_id) == 10
    marks = names.marks(v1.Endpoint(labels=recipe().labels))
    assert marks is not None
    assert (marks.deployment, marks.digest) == ("churn", DIGEST)


def test_a_scale_is_read_back_as_it_was_sent() -> None:
    for scale in (Scale.fixed(2), Scale(1, 4, target_cpu=0.5), Scale(2, 3, target_requests_per_minute=90)):
        sent = requests.mutate_replicas(ENDPOINT, "1", scale)
        assert requests.scale_of(sent.deployed_model) == scale


def test_a_target_without_a_metric_is_refused_by_name() -> None:
    with pytest.raises(NotSupportedError, match="target_cpu or target_requests_per_minute"):
        requests.mutate_replicas(ENDPOINT, "1", Scale(1, 2, target_inflight=4))


def test_an_accelerator_that_does_not_exist_is_refused_with_those_that_do() -> None:
    made = recipe(machine_type="n1-standard-4", accelerator_type="NVIDIA_9000")
    with pytest.raises(NotSupportedError, match="NVIDIA_L4"):
        requests.deploy_model(made.endpoint, made.model, made.options, Scale.fixed(1), {"0": 100})


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        (traffic.first(0, {}), {"0": 100}),
        (traffic.first(10, {"1": 100}), {"0": 10, "1": 90}),
        (traffic.first(0, {"1": 100}), {"0": 0, "1": 100}),
        (traffic.first(25, {"1": 34, "2": 66}), {"0": 25, "1": 25, "2": 50}),
        (traffic.without("1", {"1": 100}), {}),
        (traffic.without("1", {"1": 0, "2": 100}), {}),
        (traffic.without("1", {"1": 30, "2": 30, "3": 40}), {"2": 42, "3": 58}),
    ],
)
def test_traffic_sums_to_100_whoever_comes_or_goes(split: dict[str, int], wanted: dict[str, int]) -> None:
    assert split == wanted
    assert sum(split.values()) in {0, 100}
