"""The least rights that a target's options need: of whoever calls, and of the role that SageMaker takes on.

https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
"""

from __future__ import annotations

from typing import Any

from modelserve_sagemaker import logs
from modelserve_sagemaker.clients import Account
from modelserve_sagemaker.images import repository_of
from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.storage import bucket_of

_VERSION = "2012-10-17"
_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


def documents(account: Account, options: SageMakerOptions) -> dict[str, Any]:
    """IAM policy documents: `caller`, `role`, and the role's `trust`."""
    return {
        "caller": _document(_caller(account, options)),
        "role": _document(_role(account, options)),
        "trust": _document(
            [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}]
        ),
    }


def _caller(account: Account, options: SageMakerOptions) -> list[dict[str, Any]]:
    arns = [account.arn(kind, "*") for kind in ("model", "endpoint-config", "endpoint", "transform-job")]
    bucket, objects = _bucket(account, options)
    statements = [
        _allow(
            [
                f"sagemaker:{verb}{kind}"
                for kind in ("Model", "EndpointConfig", "Endpoint")
                for verb in ("Create", "Describe", "Delete")
            ]
            + [
                "sagemaker:UpdateEndpoint",
                "sagemaker:UpdateEndpointWeightsAndCapacities",
                "sagemaker:AddTags",
                "sagemaker:ListTags",
                "sagemaker:InvokeEndpoint" + ("Async" if options.is_asynchronous else ""),
            ],
            arns,
        ),
        _allow(
            [f"sagemaker:{verb}TransformJob" for verb in ("Create", "Describe", "Stop")],
            [account.arn("transform-job", "*"), account.arn("model", "*")],
        ),
        _allow(
            [f"sagemaker:List{kind}" for kind in ("Models", "EndpointConfigs", "Endpoints", "TransformJobs")], ["*"]
        ),
        {
            **_allow(["iam:PassRole"], [options.role_arn]),
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
        _allow(["iam:GetRole"], [options.role_arn]),
        _allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], [objects]),
        _allow(["s3:ListBucket", "s3:GetBucketLocation"], [bucket]),
        _allow(["ecr:DescribeImages"], [_repository(account, options)]),
        _allow(["logs:FilterLogEvents", "logs:DeleteLogGroup"], [_log_group(account, logs.group_of("*"))]),
        _allow(
            ["logs:FilterLogEvents", "logs:DescribeLogStreams", "logs:DeleteLogStream"],
            [_log_group(account, logs.JOBS), _log_group(account, f"{logs.JOBS}:*")],
        ),
        _allow(["servicequotas:ListServiceQuotas"], ["*"]),
    ]
    if options.kms_key:
        # To put there what is encrypted and read it again; the grants are what machines and jobs open their disks with.
        statements.append(_allow([f"kms:{verb}" for verb in _ENCRYPTED], [options.kms_key]))
    if options.push_image:
        statements += [
            _allow(["ecr:GetAuthorizationToken"], ["*"]),
            _allow([f"ecr:{verb}" for verb in _PUSH], [_repository(account, options)]),
        ]
    return statements + ([] if options.is_serverless else _scaling(account))


def _scaling(account: Account) -> list[dict[str, Any]]:
    role = (
        f"arn:{account.partition}:iam::{account.number}:role/aws-service-role/"
        "sagemaker.application-autoscaling.amazonaws.com/*"
    )
    return [
        _allow(
            [
                f"application-autoscaling:{verb}"
                for verb in (
                    "RegisterScalableTarget", "DescribeScalableTargets", "DeregisterScalableTarget",
                    "PutScalingPolicy", "DescribeScalingPolicies", "DeleteScalingPolicy",
                )
            ],
            ["*"],
        ),
        _allow(["cloudwatch:PutMetricAlarm", "cloudwatch:DescribeAlarms", "cloudwatch:DeleteAlarms"], ["*"]),
        _allow(["iam:CreateServiceLinkedRole"], [role]),
    ]  # fmt: skip


def _role(account: Account, options: SageMakerOptions) -> list[dict[str, Any]]:
    bucket, objects = _bucket(account, options)
    writes = options.is_asynchronous or options.capture_percent is not None
    statements = [
        _allow(["s3:GetObject", *(["s3:PutObject"] if writes else [])], [objects]),
        _allow(["s3:PutObject"], [f"{objects}/jobs/*"]),
        _allow(["s3:ListBucket"], [bucket]),
        _allow(["ecr:GetAuthorizationToken"], ["*"]),
        _allow(_PULL, [_repository(account, options)]),
        _allow(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
            [_log_group(account, "/aws/sagemaker/*")],
        ),
        _allow(["cloudwatch:PutMetricData", *(["cloudwatch:DescribeAlarms"] if options.alarms else [])], ["*"]),
    ]
    if options.kms_key:
        statements.append(_allow(["kms:Decrypt", "kms:GenerateDataKey", "kms:CreateGrant"], [options.kms_key]))
    if options.subnets:
        statements.append(_allow([f"ec2:{verb}" for verb in _NETWORK], ["*"]))
    topics = [topic for topic in (options.success_topic, options.error_topic) if topic]
    if topics:
        statements.append(_allow(["sns:Publish"], topics))
    return statements


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": _VERSION, "Statement": statements}


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def _bucket(account: Account, options: SageMakerOptions) -> tuple[str, str]:
    arn = f"arn:{account.partition}:s3:::{bucket_of(account, options)}"
    return arn, f"{arn}/{options.prefix.strip('/')}/*"


def _log_group(account: Account, name: str) -> str:
    return f"arn:{account.partition}:logs:{account.region}:{account.number}:log-group:{name}"


def _repository(account: Account, options: SageMakerOptions) -> str:
    region, number, name = repository_of(account, options)
    return f"arn:{account.partition}:ecr:{region}:{number}:repository/{name}"


_PUSH = (
    "CreateRepository", "TagResource", "DescribeRepositories", "BatchGetImage", "BatchCheckLayerAvailability",
    "GetDownloadUrlForLayer", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "PutImage",
)  # fmt: skip
_ENCRYPTED = ("CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey")
_NETWORK = (
    "CreateNetworkInterface", "CreateNetworkInterfacePermission", "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission", "DescribeNetworkInterfaces", "DescribeVpcs", "DescribeDhcpOptions",
    "DescribeSubnets", "DescribeSecurityGroups",
)  # fmt: skip
