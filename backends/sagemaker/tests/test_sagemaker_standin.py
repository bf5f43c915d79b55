"""The stand-in refuses what SageMaker refuses, in its words; boto3 asks, as anybody would."""

from __future__ import annotations

import gzip
import io
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from modelserve.bundle.archive import pack
from modelserve.testing import models
from modelserve_sagemaker.rehearsal import SageMakerRehearsal

ROLE = "arn:aws:iam::123456789012:role/modelserve"
CONTAINER = {"Image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:1", "ModelDataUrl": "s3://bucket/model.tar.gz"}


@pytest.fixture
def sagemaker(rehearsal: SageMakerRehearsal) -> Any:
    return rehearsal.backend._account.client("sagemaker")


def refused(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    return f"{raised.value.response['Error']['Code']}: {raised.value.response['Error']['Message']}"


def variant(**more: Any) -> dict[str, Any]:
    return {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **more}


def test_control_plane_refusals_are_sagemakers(sagemaker: Any) -> None:
    model = {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": CONTAINER}
    arn = sagemaker.create_model(**model)["ModelArn"]
    assert arn == "arn:aws:sagemaker:eu-west-1:123456789012:model/m"
    said = refused(sagemaker.create_model, **model)
    assert said == f'ValidationException: Cannot create already existing model "{arn}".'
    assert "does not match" in refused(sagemaker.create_model, **{**model, "ModelName": "my_model"})
    config = {"EndpointConfigName": "c", "ProductionVariants": [variant()]}
    missing = {"EndpointConfigName": "c", "ProductionVariants": [variant(ModelName="absent")]}
    assert "Could not find model" in refused(sagemaker.create_endpoint_config, **missing)
    assert "none of the" in refused(
        sagemaker.create_endpoint_config, **{**config, "ProductionVariants": [variant(InstanceType="ml.bogus")]}
    )
    sagemaker.create_endpoint_config(**config)
    assert "already existing endpoint configuration" in refused(sagemaker.create_endpoint_config, **config)
    for call in (sagemaker.describe_endpoint, sagemaker.delete_endpoint):
        assert "Could not find endpoint" in refused(call, EndpointName="absent")
    assert "Could not find endpoint configuration" in refused(
        sagemaker.create_endpoint, EndpointName="e", EndpointConfigName="absent"
    )
    assert "UnknownOperation" in refused(sagemaker.list_training_jobs)
    sagemaker.delete_endpoint_config(EndpointConfigName="c")
    sagemaker.delete_model(ModelName="m")
    assert "Could not find model" in refused(sagemaker.describe_model, ModelName="m")


def test_a_model_whose_files_are_missing_fails_with_the_reason(sagemaker: Any) -> None:
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=CONTAINER)
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant()])
    sagemaker.create_endpoint(EndpointName="Mine", EndpointConfigName="c")
    said = refused(sagemaker.create_endpoint, EndpointName="mine", EndpointConfigName="c")
    assert "already existing endpoint" in said, "Names are the same whatever their case."
    with pytest.raises(Exception, match="Failed"):
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="Mine", WaiterConfig={"Delay": 1})
    described = sagemaker.describe_endpoint(EndpointName="Mine")
    assert "Could not access model data at s3://bucket/model.tar.gz" in described["FailureReason"]
    sagemaker.delete_endpoint(EndpointName="Mine")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="Mine", WaiterConfig={"Delay": 1})


def test_a_batch_job_is_made_as_batch_transform_makes_it(rehearsal: SageMakerRehearsal, sagemaker: Any) -> None:
    s3, bucket = rehearsal.standin.upstream.client("s3"), "modelserve-123456789012-eu-west-1"
    archive = io.BytesIO()
    with gzip.GzipFile(fileobj=archive, mode="wb") as packed:
        pack(models.linear(), packed)  # type: ignore[arg-type]  # it has what is written to
    s3.put_object(Bucket=bucket, Key="model.tar.gz", Body=archive.getvalue())
    s3.put_object(Bucket=bucket, Key="in/sub/a.jsonl", Body=b'{"x":[1,2,3,4]}\n{"x":[0,0,0,0]}\n{"x":[1]}')
    container = {**CONTAINER, "ModelDataUrl": f"s3://{bucket}/model.tar.gz"}
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    job = {
        "TransformJobName": "j", "ModelName": "m", "BatchStrategy": "SingleRecord",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}},
            "ContentType": "application/jsonlines", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{bucket}/out", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }  # fmt: skip
    assert "Could not find model" in refused(sagemaker.create_transform_job, **{**job, "ModelName": "absent"})
    assert "values known" in refused(
        sagemaker.create_transform_job,
        **{**job, "TransformResources": {"InstanceType": "ml.c5.large", "InstanceCount": 1}},
    )
    sagemaker.create_transform_job(**job)
    sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName="j", WaiterConfig={"Delay": 1})
    found = s3.get_object(Bucket=bucket, Key="out/sub/a.jsonl.out")["Body"].read().split(b"\n")
    assert [line[:2] for line in found] == [b"[-", b"", b"[-", b"", b'{"', b"", b""], found
    assert "already exists" in refused(sagemaker.create_transform_job, **job)
    assert "is in status Completed" in refused(sagemaker.stop_transform_job, TransformJobName="j")
    assert "Could not find" in refused(sagemaker.describe_transform_job, TransformJobName="absent")
    (listed,) = sagemaker.list_transform_jobs(NameContains="j")["TransformJobSummaries"]
    assert listed["TransformJobStatus"] == "Completed"
    assert sagemaker.list_transform_jobs(StatusEquals="InProgress")["TransformJobSummaries"] == []


def test_an_inference_has_to_be_signed(rehearsal: SageMakerRehearsal) -> None:
    url = f"{rehearsal.standin.url}/endpoints/digits/invocations"
    scope = "AWS4-HMAC-SHA256 Credential=a/20260101/eu-west-1/sagemaker/aws4_request"
    assert httpx.post(url, content=b"x", headers={"authorization": scope}, trust_env=False).status_code == 403
    runtime = boto3.client(
        "sagemaker-runtime", endpoint_url=rehearsal.standin.url, region_name="eu-west-1",
        aws_access_key_id="a", aws_secret_access_key="wrong",
    )  # fmt: skip
    assert "SignatureDoesNotMatch" in refused(runtime.invoke_endpoint, EndpointName="digits", Body=b"x")
    runtime.close()
    good = rehearsal.backend._account.client("sagemaker-runtime")
    said = refused(good.invoke_endpoint, EndpointName="digits", Body=b"x")
    assert said == "ValidationError: Endpoint digits of account 123456789012 not found."


def test_autoscaling_refuses_what_makes_no_sense(rehearsal: SageMakerRehearsal) -> None:
    scaling = rehearsal.backend._account.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/absent/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    assert "No endpoint" in refused(scaling.register_scalable_target, **target, MinCapacity=1, MaxCapacity=2)
    assert "less than minimum" in refused(scaling.register_scalable_target, **target, MinCapacity=3, MaxCapacity=2)
    assert "ObjectNotFound" in refused(scaling.deregister_scalable_target, **target)
    assert "ObjectNotFound" in refused(scaling.delete_scaling_policy, **target, PolicyName="p")
