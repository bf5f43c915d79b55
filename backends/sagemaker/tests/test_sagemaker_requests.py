"""What would be sent: names, requests, AWS's own service model, the rules across members, permissions."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modelserve.errors import ConfigError
from modelserve.testing import models
from modelserve_sagemaker import SageMakerBackend, rules, traits
from modelserve_sagemaker.limits import architecture, has_accelerator, memory_mib, processors
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.plan import Plan
from modelserve_sagemaker.storage import write_archive

ROLE = "arn:aws:iam::123456789012:role/modelserve"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/modelserve@sha256:" + "0" * 64
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
NETWORK = {"subnets": ["subnet-1", "subnet-2"], "security_groups": ["sg-1"]}


def plan(name: str = "digits", **options: Any) -> Plan:
    told = SageMakerOptions.model_validate({"role_arn": ROLE, **options})
    return Plan(told, name, "ab" * 32, IMAGE, "s3://bucket/modelserve/digits/abab", 2)


def requests(planned: Plan) -> dict[str, dict[str, Any]]:
    return {
        "CreateModel": planned.create_model(),
        "CreateEndpointConfig": planned.create_endpoint_config(),
        "CreateEndpoint": planned.create_endpoint(),
        "UpdateEndpoint": planned.update_endpoint(),
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "x" * 40},
        {"mode": "serverless", "memory_mb": 6144, "max_concurrency": 200, "provisioned_concurrency": 200},
        {"mode": "asynchronous", "output": "s3://elsewhere/answers", "concurrent_per_instance": 4, "kms_key": KEY},
        {"kms_key": KEY, "network_isolation": True, "capture_percent": 100, "volume_gb": 512, **NETWORK},
        {"canary_percent": 50, "canary_wait_s": 3600, "alarms": ["5xx"], "tags": {"team": "a"}, "workers": 4},
        {"instance_type": "ml.m8g.xlarge", "startup_timeout_s": 3600, "download_timeout_s": 60},
    ],
)
def test_every_request_is_one_that_aws_takes(options: dict[str, Any]) -> None:
    for operation, request in requests(plan(**options)).items():
        assert traits.problems("sagemaker", operation, request) == []
        assert rules.problems(operation, request) == []


def spoiled(path: str, value: Any) -> dict[str, Any]:
    content: Any = json.loads(json.dumps(requests(plan())))
    *parents, last = path.split(".")
    inner = content
    for name in parents:
        inner = inner[int(name)] if name.isdecimal() else inner[name]
    inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("CreateEndpoint.EndpointName", "my_endpoint", "does not match"),
        ("CreateEndpoint.EndpointName", "x" * 64, "outside"),
        ("CreateModel.ExecutionRoleArn", "arn:aws:iam::12:user/somebody", "does not match"),
        ("CreateModel.PrimaryContainer.Image", "has space", "does not match"),
        ("CreateEndpointConfig.ProductionVariants.0.InstanceType", "ml.bogus", "values known"),
        ("CreateEndpointConfig.ProductionVariants.0.ContainerStartupHealthCheckTimeoutInSeconds", 4000, "outside"),
        ("CreateEndpointConfig.ProductionVariants", [], "outside"),
        ("CreateEndpointConfig.Surprise", 1, "unknown"),
    ],
)
def test_what_the_service_model_forbids_is_seen(path: str, value: Any, said: str) -> None:
    operation = path.partition(".")[0]
    problems = traits.problems("sagemaker", operation, spoiled(path, value)[operation])
    assert any(said in problem for problem in problems)


def serverless(**more: Any) -> dict[str, Any]:
    variant = {"VariantName": "v", "ModelName": "m", "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}
    return {"ProductionVariants": [variant], **more}


def transform(**more: Any) -> dict[str, Any]:
    request = {
        "MaxConcurrentTransforms": 4, "MaxPayloadInMB": 6, "BatchStrategy": "MultiRecord",
        "TransformInput": {"SplitType": "Line"}, "TransformResources": {"InstanceCount": 1},
    }  # fmt: skip
    return {**request, **more}


def canary(size: int, kind: str = "CANARY", member: str = "CanarySize") -> dict[str, Any]:
    routing = {"Type": kind, member: {"Type": "CAPACITY_PERCENT", "Value": size}}
    return {"DeploymentConfig": {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}}


TAGGED = [{"Key": f"k{number}", "Value": ""} for number in range(51)]
MACHINE = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
CONTAINER = {"Image": "a/b"}


@pytest.mark.parametrize(
    ("operation", "request_", "said"),
    [
        ("CreateModel", {}, "one of them"),
        ("CreateModel", {"PrimaryContainer": {"Image": "public.ecr.aws/a/b"}}, "public.ecr.aws"),
        (
            "CreateModel",
            {"PrimaryContainer": {**CONTAINER, "ModelDataUrl": "s3://a/b", "ModelDataSource": {}}},
            "exclude",
        ),
        ("CreateModel", {"PrimaryContainer": {**CONTAINER, "Environment": {"A": "x" * 1025}}}, "longer than 1024"),
        ("CreateModel", {"PrimaryContainer": {"Environment": {f"A{n}": "x" * 1000 for n in range(40)}}}, "together"),
        ("CreateModel", {"PrimaryContainer": {"Environment": {f"A{n}": "" for n in range(101)}}}, "101 entries"),
        ("CreateEndpointConfig", {"ProductionVariants": [{"VariantName": "v"}]}, "one of them"),
        ("CreateEndpointConfig", {"ProductionVariants": [MACHINE, MACHINE]}, "same name"),
        ("CreateEndpointConfig", {"ProductionVariants": [{**MACHINE, "InitialInstanceCount": 0}]}, "at least 1"),
        ("CreateEndpointConfig", serverless(KmsKeyId=KEY), "no KmsKeyId"),
        ("CreateEndpointConfig", serverless(DataCaptureConfig={"EnableCapture": True}), "no DataCaptureConfig"),
        ("UpdateEndpoint", canary(51), "1 to 50"),
        ("UpdateEndpoint", canary(5, "LINEAR", "LinearStepSize"), "10 to 50"),
        ("UpdateEndpoint", canary(5, "LINEAR"), "needs LinearStepSize"),
        ("CreateTransformJob", transform(MaxPayloadInMB=26), "above 100"),
        ("CreateTransformJob", transform(TransformInput={}), "needs a SplitType"),
        ("CreateTransformJob", transform(TransformResources={"InstanceCount": 101}), "at most 100"),
        ("CreateEndpoint", {"Tags": TAGGED}, "at most 50"),
        ("CreateEndpoint", {"Tags": [TAGGED[0], TAGGED[0]]}, "twice"),
        ("CreateEndpoint", {"Tags": [{"Key": "aws:x", "Value": ""}]}, "AWS's own"),
    ],
)
def test_what_members_forbid_each_other_is_seen(operation: str, request_: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in rules.problems(operation, request_))


def test_the_same_request_has_the_same_names_and_a_changed_one_has_others() -> None:
    assert plan().config_name == plan().config_name
    assert plan(instance_type="ml.m5.large").model_name == plan().model_name
    assert plan(instance_type="ml.m5.large").config_name != plan().config_name
    assert plan(workers=2).model_name != plan().model_name
    assert len(plan(name="x" * 63).config_name) == 63


def test_the_same_bundle_has_the_same_archive(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_archive(models.linear(), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    with tarfile.open(tmp_path / "first") as archive:
        assert "model.onnx" in archive.getnames()


@pytest.mark.parametrize(
    ("instance_type", "kind", "accelerated", "memory", "count"),
    [
        ("ml.c7i.large", "amd64", False, 4096, 2),
        ("ml.m7g.xlarge", "arm64", False, 16384, 4),
        ("ml.r6gd.2xlarge", "arm64", False, 65536, 8),
        ("ml.m8g.medium", "arm64", False, 4096, 1),
        ("ml.c4.8xlarge", "amd64", False, 65536, None),
        ("ml.g5.xlarge", "amd64", True, None, None),
        ("ml.p5.48xlarge", "amd64", True, None, None),
        ("ml.inf2.xlarge", "amd64", True, None, None),
        ("ml.m5.4xlarge", "amd64", False, 65536, 16),
    ],
)
def test_a_machine_is_known_by_its_name(
    instance_type: str, kind: str, accelerated: bool, memory: int | None, count: int | None
) -> None:
    assert architecture(instance_type) == kind
    assert processors(instance_type) == count
    assert has_accelerator(instance_type) is accelerated
    assert memory_mib(SageMakerOptions(instance_type=instance_type)) == memory


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "batch"}, "mode"),
        ({"batch_instances": 101}, "batch_instances"),
        ({"memory_mb": 1500}, "memory_mb"),
        ({"canary_percent": 51}, "canary_percent"),
        ({"subnets": ["s"]}, "go together"),
        ({"startup_timeout_s": 4000}, "startup_timeout_s"),
        ({"instance": "ml.m5.large"}, "no option 'instance'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SageMakerBackend(options)


SERVICES = [
    "sagemaker", "sagemaker-runtime", "application-autoscaling", "s3", "sts", "iam", "ecr", "logs", "cloudwatch",
    "service-quotas",
]  # fmt: skip


@pytest.mark.parametrize("service", SERVICES)
def test_every_pattern_of_the_services_is_understood(service: str) -> None:
    model = traits.service_model(service)
    patterns = [
        shape.metadata["pattern"] for shape in map(model.shape_for, model.shape_names) if "pattern" in shape.metadata
    ]
    for pattern in patterns:
        traits._compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        (r"\p{Print}+", "modelserve", "a\n"),
        (r"[\p{Print}\n]+", "a\nb", "\t"),
        (r"\p{ASCII}*", "a\n", "ä"),
        (r"^a\z", "a", "ab"),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", "a 😀", "\0"),
    ],
)
def test_a_pattern_means_what_aws_means(pattern: str, taken: str, refused: str) -> None:
    assert traits._compiled(pattern).fullmatch(taken)
    assert not traits._compiled(pattern).fullmatch(refused)


def test_every_option_is_on_the_page() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "deploy-to-sagemaker.md").read_text()
    missing = [name for name, line in SageMakerOptions.described().items() if f"| `{name}` | {line} |" not in text]
    assert missing == []
