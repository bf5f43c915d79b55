"""What is refused before anything is created, and what a target needs the permission for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from modelserve import image as builder
from modelserve.backend import DeploymentSpec, JobState, Scale, Verdict, WorkPart
from modelserve.dataset import on_service
from modelserve.errors import PreflightError
from modelserve.model import Model
from modelserve.testing import models
from modelserve_sagemaker import images, registry
from modelserve_sagemaker.rehearsal import SageMakerRehearsal

Open = Callable[..., SageMakerRehearsal]
SPEC = DeploymentSpec("digits")
PASSED = Verdict.PASSED
OTHER_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def refused(rehearsal: SageMakerRehearsal, spec: DeploymentSpec = SPEC) -> str:
    with pytest.raises(PreflightError) as raised:
        rehearsal.backend.deploy(models.linear(), spec)
    assert rehearsal.leftovers() == []
    return str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"role_arn": ""}, "role_arn is ''"),
        ({"role_arn": "arn:aws:iam::1:user/me"}, "must be the ARN"),
        ({"instance_type": "ml.g5.xlarge"}, "accelerator"),
        ({"image": "docker.io/somebody/image:1"}, "Amazon ECR only"),
        ({"image": "999999999999.dkr.ecr.us-west-2.amazonaws.com/a:1"}, "lies in 'us-west-2'"),
        ({"canary_percent": 10}, "needs two replicas"),
        ({"mode": "serverless", "capture_percent": 5}, "takes no DataCaptureConfig"),
        ({"mode": "serverless", "max_concurrency": 1, "provisioned_concurrency": 2}, "above MaxConcurrency"),
        ({"kms_key": "no key"}, "KmsKeyId"),
    ],
)
def test_what_aws_would_refuse_is_refused_before(rehearse: Open, options: dict[str, Any], said: str) -> None:
    assert said in refused(rehearse(**options), DeploymentSpec("digits", Scale.fixed(1)))


def test_what_the_account_lacks_is_refused_before(rehearsal: SageMakerRehearsal) -> None:
    standin = rehearsal.standin
    standin.quotas["ml.c7i.large"] = 1
    assert "may have 1 machines" in refused(rehearsal, DeploymentSpec("digits", Scale.fixed(2)))
    standin.upstream.client("iam").update_assume_role_policy(
        RoleName="modelserve", PolicyDocument=json.dumps(OTHER_TRUST)
    )
    standin.upstream.client("s3").delete_bucket(Bucket="modelserve-123456789012-eu-west-1")
    standin.upstream.client("ecr").delete_repository(repositoryName="modelserve", force=True)
    text = refused(rehearsal)
    for said in ("does not trust", "aws s3 mb", "modelserve image build --push"):
        assert said in text


def test_an_instance_type_that_botocore_does_not_know_may_be_a_new_one(rehearse: Open) -> None:
    rehearsal = rehearse(instance_type="ml.c99i.large")
    findings = {finding.name: finding for finding in rehearsal.backend.preflight(models.linear(), SPEC)}
    assert findings["instance type"].verdict.value == "only seen live"
    assert findings["request"].verdict.value == "passed"


def test_where_it_is_asked_for_the_image_is_built_and_pushed(rehearse: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal = rehearse(push_image=True, instance_type="ml.m7g.large")
    account, ecr = rehearsal.backend._account, rehearsal.standin.upstream.client("ecr")
    ecr.delete_repository(repositoryName="modelserve", force=True)
    pushed: list[tuple[Any, str, Any]] = []

    class Made:
        size_bytes = 1

    def build(recipe: builder.Recipe, **_: Any) -> Made:
        assert str(recipe.platform) == "linux/arm64"
        return Made()

    def push(made: Made, reference: str, *, credentials: builder.Credentials) -> None:
        assert ecr.describe_repositories(repositoryNames=["modelserve"])["repositories"], "It is made before the push."
        pushed.append((made, reference, credentials(account.registry)))

    monkeypatch.setattr(builder, "build", build)
    monkeypatch.setattr(builder, "push", push)
    findings = {one.name: one for one in rehearsal.backend.preflight(models.linear(), SPEC)}
    assert "is built and pushed" in findings["image"].text
    registry.push_runtime(account, rehearsal.backend._options, lambda _line: None)
    ((_, reference, login),) = pushed
    tag = builder.tag_of(builder.Recipe(platform=builder.Platform("arm64")))
    assert reference == f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/modelserve:{tag}"
    assert isinstance(login, builder.Password)
    assert login.user == "AWS"


def test_another_modelserve_than_the_one_that_was_pushed_is_noticed(
    rehearsal: SageMakerRehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {one.name: one.verdict for one in rehearsal.backend.preflight(models.linear(), SPEC)}["image"] is PASSED
    monkeypatch.setattr("modelserve.image.assembly.product_digest", lambda: "sha256:changed")
    images._own_tag.cache_clear()
    assert "--push 123456789012.dkr.ecr.eu-west-1.amazonaws.com/modelserve --platform linux/amd64" in refused(rehearsal)
    images._own_tag.cache_clear()


def actions(document: dict[str, Any]) -> set[str]:
    found = [statement["Action"] for statement in document["Statement"]]
    return {action for each in found for action in ([each] if isinstance(each, str) else each)}


def test_a_policy_names_what_the_options_need_and_nothing_more(rehearse: Open) -> None:
    plain = rehearse().backend.policy()
    assert {"sagemaker:CreateEndpoint", "iam:PassRole", "ecr:DescribeImages"} <= actions(plain["caller"])
    assert "application-autoscaling:RegisterScalableTarget" in actions(plain["caller"])
    assert "sagemaker:InvokeEndpoint" in actions(plain["caller"])
    assert {"sns:Publish", "ec2:DescribeVpcs", "kms:Decrypt"} & actions(plain["role"]) == set()
    (put,) = [one for one in plain["role"]["Statement"] if "s3:PutObject" in one["Action"]]
    assert put["Resource"] == ["arn:aws:s3:::modelserve-123456789012-eu-west-1/modelserve/*/jobs/*"]
    assert plain["trust"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    rich = rehearse(
        mode="asynchronous", success_topic="arn:aws:sns:eu-west-1:123456789012:done", kms_key="key",
        subnets=["subnet-1"], security_groups=["sg-1"], push_image=True,
    ).backend.policy()  # fmt: skip
    assert {"s3:PutObject", "sns:Publish", "ec2:DescribeVpcs", "kms:Decrypt"} <= actions(rich["role"])
    assert {"kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey"} <= actions(rich["caller"])
    assert not any(action.startswith("kms:") for action in actions(plain["caller"]))
    assert {"sagemaker:InvokeEndpointAsync", "ecr:PutImage", "ecr:GetAuthorizationToken"} <= actions(rich["caller"])
    assert "application-autoscaling:RegisterScalableTarget" not in actions(
        rehearse(mode="serverless").backend.policy()["caller"]
    )


#: By the operation as it is called: what IAM calls it, where that differs.
CALLED = {
    "s3.HEAD": "s3:GetObject", "s3.GET": "s3:GetObject", "s3.PUT": "s3:PutObject", "s3.POSTdelete": "s3:DeleteObject",
    "s3.GETlist-type": "s3:ListBucket", "s3.GETlocation": "s3:GetBucketLocation",
    "sagemaker-runtime.InvokeEndpoint": "sagemaker:InvokeEndpoint",
}  # fmt: skip


@pytest.mark.long
def test_whatever_a_life_calls_stands_in_the_policy(rehearsal: SageMakerRehearsal) -> None:
    backend, calls = rehearsal.backend, rehearsal.standin.faults.calls
    allowed = actions(backend.policy()["caller"])
    calls.clear()
    endpoint = backend.deploy(models.linear(), DeploymentSpec("digits", Scale(1, 2, target_inflight=4)))
    endpoint.scale(Scale.fixed(1))
    endpoint.update(models.linear(seed=1))
    list(endpoint.logs())
    backend.attach("digits").close()
    backend.list()
    for attempt in ("answered", "stopped"):
        job = endpoint.batch("work", [WorkPart(0, b'{"$row":[0,0],"inputs":{"x":[1,2,3,4]},"outputs":["y"]}\n')])
        if attempt == "answered":
            assert on_service.follow(job, lambda _status: None).state is JobState.COMPLETED
            assert job.lines(0)
        job.delete()
    endpoint.delete()
    needed = {CALLED.get(call, call.replace(".", ":")) for call in calls} - {"sts:GetCallerIdentity"}
    assert sorted(needed - allowed) == []


def test_a_dry_run_shows_the_checks_and_touches_nothing(
    rehearse: Open, elsewhere: Callable[[SageMakerRehearsal], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal, lines = rehearse(), list[str]()
    for name, value in elsewhere(rehearsal).items():
        monkeypatch.setenv(name, value)
    role = "arn:aws:iam::123456789012:role/modelserve"
    plan = Model(models.linear()).serve(
        "elsewhere", role_arn=role, name="digits", dry_run=True, on_progress=lines.append
    )
    assert plan.action == "create"
    assert [finding.name for finding in plan.findings if finding.verdict is Verdict.REFUSED] == []
    assert "passed         bucket: s3://modelserve-123456789012-eu-west-1" in lines[0]
    assert rehearsal.leftovers() == []


def test_a_model_too_large_for_the_machine_is_refused_before(rehearse: Open) -> None:
    rehearsal = rehearse(mode="serverless", memory_mb=1024, workers=64)
    assert "Choose a larger memory_mb" in refused(rehearsal)
