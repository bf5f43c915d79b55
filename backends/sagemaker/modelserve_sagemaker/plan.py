"""From options, a bundle and a name to the exact requests: pure, so that what would be sent can be looked at first.

    Plan(options, account's facts, deployment, bundle) ──► create_model, create_endpoint_config, create_endpoint

Names are made of what is sent: the same request has the same name, and a changed one never meets an old resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelserve.backend import Scale
from modelserve.backend.marks import Marks, content_name
from modelserve_sagemaker.options import SageMakerOptions

#: SageMaker's alarms and metrics of a whole endpoint know the only variant by this name.
VARIANT = "AllTraffic"
_DEFAULT_REPLICAS = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent for one version of one deployment.

    Attributes:
        image: The runtime's image, by digest where it is known.
        location: The folder in S3 with the model's files: s3://bucket/key.
        replicas: How many machines to start with.
    """

    options: SageMakerOptions
    deployment: str
    digest: str
    image: str
    location: str
    replicas: int = _DEFAULT_REPLICAS

    @property
    def marks(self) -> dict[str, str]:
        return {**self.options.tags, **Marks.of(self.deployment, self.digest).as_tags()}

    @property
    def tags(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.marks.items()]

    @property
    def model_name(self) -> str:
        return content_name(self.deployment, self._model())

    @property
    def config_name(self) -> str:
        return content_name(self.deployment, self._config())

    def create_model(self) -> dict[str, Any]:
        return {"ModelName": self.model_name, **self._model(), "Tags": self.tags}

    def create_endpoint_config(self) -> dict[str, Any]:
        return {"EndpointConfigName": self.config_name, **self._config(), "Tags": self.tags}

    def create_endpoint(self) -> dict[str, Any]:
        return {"EndpointName": self.deployment, "EndpointConfigName": self.config_name, "Tags": self.tags}

    def update_endpoint(self) -> dict[str, Any]:
        """Traffic moves to new machines; how many there are stays as scaling left it."""
        request: dict[str, Any] = {"EndpointName": self.deployment, "EndpointConfigName": self.config_name}
        if self.options.is_serverless:
            return request
        request["RetainAllVariantProperties"] = True
        routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
        if self.options.canary_percent is not None:
            routing = {
                "Type": "CANARY",
                "WaitIntervalInSeconds": self.options.canary_wait_s,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": self.options.canary_percent},
            }
        request["DeploymentConfig"] = {
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0},
            **self._alarms(),
        }
        return request

    def _alarms(self) -> dict[str, Any]:
        alarms = [{"AlarmName": name} for name in self.options.alarms]
        return {"AutoRollbackConfiguration": {"Alarms": alarms}} if alarms else {}

    def _model(self) -> dict[str, Any]:
        options = self.options
        request: dict[str, Any] = {
            "PrimaryContainer": {
                "Image": self.image,
                "ModelDataUrl": f"{self.location}/model.tar.gz",
                "Environment": self._environment(),
            },
            "ExecutionRoleArn": options.role_arn,
        }
        if options.subnets:
            request["VpcConfig"] = {"Subnets": options.subnets, "SecurityGroupIds": options.security_groups}
        if options.network_isolation:
            request["EnableNetworkIsolation"] = True
        return request

    def _environment(self) -> dict[str, str]:
        workers = {} if self.options.workers is None else {"MODELSERVE_SERVER_WORKERS": str(self.options.workers)}
        return {"MODELSERVE_CONTRACT": "sagemaker", **workers, **self.options.environment}

    def _config(self) -> dict[str, Any]:
        options = self.options
        request: dict[str, Any] = {"ProductionVariants": [self._variant()]}
        if options.kms_key and not options.is_serverless:
            request["KmsKeyId"] = options.kms_key
        if options.is_asynchronous:
            request["AsyncInferenceConfig"] = self._asynchronous()
        if options.capture_percent is not None:
            request["DataCaptureConfig"] = self._capture()
        return request

    def _variant(self) -> dict[str, Any]:
        options = self.options
        variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": self.model_name}
        if options.is_serverless:
            variant["ServerlessConfig"] = {
                "MemorySizeInMB": options.memory_mb,
                "MaxConcurrency": options.max_concurrency,
            }
            if options.provisioned_concurrency is not None:
                variant["ServerlessConfig"]["ProvisionedConcurrency"] = options.provisioned_concurrency
            return variant
        variant |= {
            "InstanceType": options.instance_type,
            "InitialInstanceCount": self.replicas,
            "InitialVariantWeight": 1.0,
            "ModelDataDownloadTimeoutInSeconds": options.download_timeout_s,
            "ContainerStartupHealthCheckTimeoutInSeconds": options.startup_timeout_s,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
        if options.volume_gb is not None:
            variant["VolumeSizeInGB"] = options.volume_gb
        return variant

    def _asynchronous(self) -> dict[str, Any]:
        options = self.options
        output: dict[str, Any] = {
            "S3OutputPath": options.output or f"{self.location}/answers",
            "S3FailurePath": f"{options.output or self.location + '/answers'}/failures",
        }
        topics = {"SuccessTopic": options.success_topic, "ErrorTopic": options.error_topic}
        if any(topics.values()):
            output["NotificationConfig"] = {name: topic for name, topic in topics.items() if topic}
        if options.kms_key:
            output["KmsKeyId"] = options.kms_key
        request: dict[str, Any] = {"OutputConfig": output}
        if options.concurrent_per_instance is not None:
            request["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": options.concurrent_per_instance}
        return request

    def _capture(self) -> dict[str, Any]:
        return {
            "EnableCapture": True,
            "InitialSamplingPercentage": self.options.capture_percent,
            "DestinationS3Uri": f"{self.location}/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        }


def first_replicas(scale: Scale | None) -> int:
    """How many machines to start with; scaling moves them from there."""
    return _DEFAULT_REPLICAS if scale is None else max(1, scale.minimum)
