"""SageMaker's control plane: each operation that endpoints need, in AWS's words.

A request is held against AWS's own service model and the rules across members before anything is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelserve_sagemaker import rules, traits
from modelserve_sagemaker.rehearsal.answers import AwsError, invalid, page
from modelserve_sagemaker.rehearsal.lives import Lives
from modelserve_sagemaker.rehearsal.records import EndpointRecord, Records
from modelserve_sagemaker.rehearsal.transforms import Transforms

Request = dict[str, Any]


class Control:
    """Answers operations of SageMaker."""

    def __init__(self, records: Records, lives: Lives, transforms: Transforms) -> None:
        self._records = records
        self._lives = lives
        self._operations: dict[str, Callable[[Request], Any]] = {
            "CreateModel": self._create_model,
            "DescribeModel": lambda request: self._described("model", "ModelName", request),
            "DeleteModel": lambda request: self._records.remove("model", request["ModelName"]),
            "ListModels": lambda request: self._listed("model", "Models", "ModelName", request),
            "CreateEndpointConfig": self._create_config,
            "DescribeEndpointConfig": lambda request: self._described("endpoint-config", "EndpointConfigName", request),
            "DeleteEndpointConfig": lambda request: self._records.remove(
                "endpoint-config", request["EndpointConfigName"]
            ),
            "ListEndpointConfigs": lambda request: self._listed(
                "endpoint-config", "EndpointConfigs", "EndpointConfigName", request
            ),
            "CreateEndpoint": self._create_endpoint,
            "DescribeEndpoint": self._describe_endpoint,
            "UpdateEndpoint": self._update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self._update_capacities,
            "DeleteEndpoint": self._delete_endpoint,
            "ListEndpoints": self._list_endpoints,
            "AddTags": self._add_tags,
            "ListTags": lambda request: {"Tags": self._records.tags_of(request["ResourceArn"])},
            **transforms.operations,
        }

    def answer(self, operation: str, request: Request) -> Any:
        """What SageMaker answers.

        Raises:
            AwsError: what it refuses.
        """
        if operation not in self._operations:
            raise AwsError("UnknownOperationException", f"This stand-in has no {operation}.")
        found = [*traits.problems("sagemaker", operation, request), *rules.problems(operation, request)]
        if found:
            raise invalid(f"{len(found)} validation error(s) detected: {'; '.join(found)}")
        return self._operations[operation](request) or {}

    def _create_model(self, request: Request) -> Any:
        return {"ModelArn": self._records.add("model", request["ModelName"], request)}

    def _create_config(self, request: Request) -> Any:
        for variant in request["ProductionVariants"]:
            if "ModelName" in variant:
                self._records.get("model", variant["ModelName"])
        name = request["EndpointConfigName"]
        return {"EndpointConfigArn": self._records.add("endpoint-config", name, request)}

    def _described(self, kind: str, key: str, request: Request) -> Any:
        name = request[key]
        arn_key = key.removesuffix("Name") + "Arn"
        return {**self._records.get(kind, name), arn_key: self._records.arn(kind, name)}

    def _listed(self, kind: str, key: str, name_key: str, request: Request) -> Any:
        records = self._records.models if kind == "model" else self._records.configs
        arn_key = name_key.removesuffix("Name") + "Arn"
        with self._records.lock:
            found = [
                {name_key: name, arn_key: self._records.arn(kind, name), "CreationTime": record["CreationTime"]}
                for name, record in records.items()
            ]
        return page(found, key, name_key, request)

    def _create_endpoint(self, request: Request) -> Any:
        records, name = self._records, request["EndpointName"]
        arn = records.arn("endpoint", name)
        config = records.get("endpoint-config", request["EndpointConfigName"])
        with records.lock:
            if name.lower() in {other.lower() for other in records.endpoints}:
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            record = EndpointRecord(name, arn, request["EndpointConfigName"])
            records.endpoints[name] = record
            records.tag(arn, request.get("Tags", []))
        self._lives.begin(record, config)
        return {"EndpointArn": arn}

    def _describe_endpoint(self, request: Request) -> Any:
        record = self._records.endpoint(request["EndpointName"])
        with self._records.lock:
            answer: Request = {
                "EndpointName": record.name,
                "EndpointArn": record.arn,
                "EndpointConfigName": record.config_name,
                "EndpointStatus": record.status,
                "CreationTime": record.created,
                "LastModifiedTime": record.modified,
            }
            if record.failure:
                answer["FailureReason"] = record.failure
            if record.fleets:
                answer["ProductionVariants"] = [self._variant(record, name) for name in record.fleets]
            if record.last_deployment:
                answer["LastDeploymentConfig"] = record.last_deployment
            if record.stages and record.status in {"Creating", "Updating"}:
                answer["PendingDeploymentSummary"] = _pending(record)
        return answer

    def _variant(self, record: EndpointRecord, name: str) -> Request:
        if record.serverless:
            return {"VariantName": name, "CurrentServerlessConfig": record.serverless}
        fleet = record.fleets[name]
        return {
            "VariantName": name,
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": fleet.ready,
            "DesiredInstanceCount": record.desired.get(name, fleet.wanted),
        }

    def _update_endpoint(self, request: Request) -> Any:
        record = self._records.endpoint(request["EndpointName"])
        config = self._records.get("endpoint-config", request["EndpointConfigName"])
        with self._records.lock:
            if record.status != "InService":
                raise invalid(f'Cannot update in-progress endpoint "{record.arn}".')
            if record.serverless and "InstanceType" in config["ProductionVariants"][0]:
                record.serverless = {}
            elif not record.serverless and "ServerlessConfig" in config["ProductionVariants"][0]:
                raise invalid("Cannot update a real-time endpoint to a serverless one.")
            record.move("Updating")
        self._lives.change(record, config, request)
        return {"EndpointArn": record.arn}

    def _update_capacities(self, request: Request) -> Any:
        record = self._records.endpoint(request["EndpointName"])
        wishes = {wish["VariantName"]: wish for wish in request["DesiredWeightsAndCapacities"]}
        with self._records.lock:
            unknown = [name for name in wishes if name not in record.fleets]
            if unknown:
                raise invalid(
                    f'The variant name(s) "{unknown[0]}" is/are not present within the endpoint configuration.'
                )
            if record.status != "InService":
                raise invalid(f'Cannot update in-progress endpoint "{record.arn}".')
            record.move("Updating")
        self._lives.resize(record, wishes)
        return {"EndpointArn": record.arn}

    def _delete_endpoint(self, request: Request) -> Any:
        record = self._records.endpoint(request["EndpointName"])
        with self._records.lock:
            if record.status in {"Creating", "Updating", "RollingBack"}:
                raise invalid(f'Cannot update in-progress endpoint "{record.arn}".')
            record.move("Deleting")
        self._lives.end(record)

    def _list_endpoints(self, request: Request) -> Any:
        with self._records.lock:
            found = [
                {
                    "EndpointName": record.name,
                    "EndpointArn": record.arn,
                    "CreationTime": record.created,
                    "LastModifiedTime": record.modified,
                    "EndpointStatus": record.status,
                }
                for record in self._records.endpoints.values()
            ]
        return page(found, "Endpoints", "EndpointName", request)

    def _add_tags(self, request: Request) -> Any:
        self._records.tags_of(request["ResourceArn"])
        self._records.tag(request["ResourceArn"], request["Tags"])
        return {"Tags": self._records.tags_of(request["ResourceArn"])}


def _pending(record: EndpointRecord) -> Request:
    statuses = [{"Status": stage} for stage in record.stages[-1:]]
    return {
        "EndpointConfigName": record.config_name,
        "ProductionVariants": [{"VariantName": "AllTraffic", "VariantStatus": statuses}],
    }
