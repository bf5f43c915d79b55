"""What is sent to Azure: names, bodies, and what would be refused there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from modelserve.backend import Scale
from modelserve.backend.marks import Marks
from modelserve.errors import (
    AccessDeniedError,
    ConfigError,
    DeadlineError,
    DeploymentNotFoundError,
    InvalidScaleError,
    ModelRunError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    OverloadedError,
    QuotaError,
)
from modelserve_azureml import AzureMLBackend, autoscale, bodies, names, policies
from modelserve_azureml.arm import merged
from modelserve_azureml.endpoint import check_scale
from modelserve_azureml.errors import from_answer, from_operation, from_score, is_updating
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.policies import NEEDED_ACTIONS, NEEDED_BATCH_ACTIONS
from modelserve_azureml.validation import Kind, problems, seconds

WORKSPACE = names.Workspace("s", "g", "w")
OPTIONS = {"subscription": "s", "resource_group": "g", "workspace": "w"}


def options(**given: Any) -> AzureMLOptions:
    return AzureMLOptions(**{**OPTIONS, **given})


def endpoint(**given: Any) -> dict[str, Any]:
    return {**bodies.endpoint("digits-1", "westeurope", options(), {"a": "b"}), **given}


def deployment(**properties: Any) -> dict[str, Any]:
    body = bodies.deployment("v-1", "westeurope", options(), model="/m", environment="/e", capacity=2, tags={"a": "b"})
    return {**body, "properties": {**body["properties"], **properties}}


def answered(status: int, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    request = httpx.Request("GET", "https://management.azure.com/x")
    return httpx.Response(status, content=json.dumps(content).encode(), headers=headers or {}, request=request)


@pytest.mark.parametrize("name", ["a", "digits", "a-b--c", "x" * 40, "a" * 25 + "-" + "b" * 14])
def test_every_deployments_name_gives_one_that_azure_takes(name: str) -> None:
    found = names.endpoint_name(WORKSPACE, name)
    assert problems(Kind.ENDPOINT, found, endpoint()) == []
    assert names.endpoint_name(WORKSPACE, name) == found
    assert names.endpoint_name(names.Workspace("s", "g", "another"), name) != found


def test_marks_travel_as_tags_and_back() -> None:
    marks = Marks.of("digits", "d" * 64)
    assert names.marks({"tags": names.tags({"team": "x"}, marks)}) == marks
    assert names.marks({"tags": {"team": "x"}, "properties": {}}) is None


def test_time_and_concurrency_are_said_since_the_services_defaults_are_traps() -> None:
    settings = deployment()["properties"]["requestSettings"]
    assert settings == {"requestTimeout": "PT90S", "maxConcurrentRequestsPerInstance": 64}
    assert deployment()["properties"]["environmentVariables"]["MODELSERVE_SERVER_TIMEOUT_S"] == "90"


def test_what_we_send_is_what_microsofts_schema_takes() -> None:
    assert problems(Kind.ENDPOINT, "digits-1", endpoint()) == []
    assert problems(Kind.DEPLOYMENT, "v-1", deployment()) == []
    assert problems(Kind.ENVIRONMENT, "e", bodies.environment("r.azurecr.io/i:1", {})) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"authMode": "bogus"}, "authMode"),
        ({"publicNetworkAccess": "enabled"}, "publicNetworkAccess"),
        ({"traffic": {"blue": 130}}, "sum to 0 or 100"),
        ({"traffic": {"blue": 60}}, "sum to 0 or 100"),
        ({"traffic": {"blue": 33.3}}, "traffic/blue"),
        ({"mirrorTraffic": {"blue": 80}}, "at most 50"),
        ({"mirrorTraffic": {"blue": 10, "green": 10}}, "one deployment"),
        ({"traffic": {"blue": 100}, "mirrorTraffic": {"blue": 10}}, "live and mirrored"),
        ({"trafic": {}}, "trafic"),
    ],
)
def test_an_endpoint_that_azure_refuses_is_refused_here(change: dict[str, Any], told: str) -> None:
    body = endpoint()
    body["properties"] |= change
    assert told in " ".join(problems(Kind.ENDPOINT, "digits-1", body))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"requestSettings": {"requestTimeout": "PT999S"}}, "180"),
        ({"requestSettings": {"requestTimeout": "90"}}, "requestTimeout"),
        ({"requestSettings": {"maxConcurrentRequestsPerInstance": 0}}, "at least 1"),
        ({"requestSettings": {"maxConcurrentRequests": 1}}, "maxConcurrentRequests"),
        ({"readinessProbe": {"failureThreshold": "x"}}, "failureThreshold"),
        ({"livenessProbe": {"successThreshold": 2}}, "must be 1"),
        ({"startupProbe": {"period": "PT0S"}}, "at least one second"),
        ({"environmentVariables": {"A": 1}}, "environmentVariables/A"),
        ({"instanceType": ""}, "instanceType"),
        ({"egressPublicNetworkAccess": "maybe"}, "egressPublicNetworkAccess"),
    ],
)
def test_a_deployment_that_azure_refuses_is_refused_here(change: dict[str, Any], told: str) -> None:
    assert told in " ".join(problems(Kind.DEPLOYMENT, "v-1", deployment(**change)))


@pytest.mark.parametrize("capacity", [0, -3, 51, None, "two"])
def test_a_number_of_instances_that_azure_refuses_is_refused_here(capacity: Any) -> None:
    body = {**deployment(), "sku": {"name": "Default", "capacity": capacity}}
    assert "capacity" in " ".join(problems(Kind.DEPLOYMENT, "v-1", body))


@pytest.mark.parametrize("name", ["ab", "A_b", "a--b", "a-", "1a", "a" * 33])
def test_a_name_that_azure_refuses_is_refused_here(name: str) -> None:
    assert problems(Kind.ENDPOINT, name, endpoint())
    with pytest.raises(ConfigError, match="endpoint_name"):
        AzureMLBackend({**OPTIONS, "endpoint_name": name})


@pytest.mark.parametrize(
    "tags", [{f"k{number}": "v" for number in range(47)}, {"a/b": "c"}, {"a": "v" * 257}, {"n" * 513: "v"}]
)
def test_tags_that_azure_refuses_are_refused_here(tags: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="tags"):
        AzureMLBackend({**OPTIONS, "tags": tags})


@pytest.mark.parametrize(
    ("duration", "wanted"),
    [("PT5S", 5), ("PT1M30S", 90), ("P1DT2H", 93600), ("PT", None), ("P", None), ("5", None), ("PT2.5S", None)],
)
def test_durations_are_read_as_azure_reads_them(duration: str, wanted: int | None) -> None:
    assert seconds(duration) == wanted


def test_changing_the_traffic_keeps_everything_else() -> None:
    shown = {
        "id": "x",
        "name": "digits-1",
        "location": "westeurope",
        "tags": {"team": "x"},
        "identity": {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"},
        "systemData": {"createdBy": "x"},
        "properties": {"authMode": "Key", "scoringUri": "https://x", "provisioningState": "Succeeded", "traffic": {}},
    }
    assert merged(shown, traffic={"blue": 100}) == {
        "location": "westeurope",
        "tags": {"team": "x"},
        "identity": {"type": "SystemAssigned"},
        "properties": {"authMode": "Key", "traffic": {"blue": 100}},
    }


@pytest.mark.parametrize("scale", [Scale(1, 3), Scale(2, 5, target_cpu=0.7), Scale(1, 2, target_requests_per_minute=9)])
def test_a_range_is_kept_in_azures_words_and_read_again(scale: Scale) -> None:
    content = autoscale.setting("/d", "/e", "westeurope", scale, 2, {"a": "b"})
    assert autoscale.read(content) == scale
    directions = [rule["scaleAction"]["direction"] for rule in content["properties"]["profiles"][0]["rules"]]
    assert directions == ["Increase", "Decrease"]


def test_a_scale_that_no_managed_endpoint_has_is_refused_with_what_to_do() -> None:
    with pytest.raises(NotSupportedError, match="at least one instance"):
        check_scale(Scale(0, 1))
    with pytest.raises(NotSupportedError, match="target_cpu or target_requests_per_minute"):
        check_scale(Scale(1, 2, target_inflight=4))
    with pytest.raises(InvalidScaleError, match="50"):
        check_scale(Scale.fixed(51))


@pytest.mark.parametrize(
    ("status", "error", "kind", "told"),
    [
        (403, {"code": "AuthorizationFailed", "message": "no action"}, AccessDeniedError, "modelserve policy"),
        (404, {"code": "ResourceNotFound", "message": "x"}, DeploymentNotFoundError, "ResourceNotFound"),
        (404, {"code": "ResourceGroupNotFound", "message": "x"}, ConfigError, "resource_group"),
        (409, {"code": "MissingSubscriptionRegistration", "message": "x"}, ConfigError, "az provider register"),
        (429, {"code": "TooManyRequests", "message": "x"}, OverloadedError, "TooManyRequests"),
        (400, {"code": "UserError", "message": "x already exists in region y"}, ConfigError, "endpoint_name"),
        (
            400,
            {"code": "BadRequest", "message": "a", "details": [{"code": "OutOfQuota", "message": "Not enough quota"}]},
            QuotaError,
            "Not enough quota",
        ),
        (503, {"code": "ServerBusy", "message": "x"}, NotReadyError, "ServerBusy"),
    ],
)
def test_a_refusal_of_the_resource_manager_is_one_of_ours_and_says_the_way_out(
    status: int, error: dict[str, Any], kind: type[ModelServeError], told: str
) -> None:
    found = from_answer(answered(status, {"error": error}), "PUT x")
    assert type(found) is kind
    assert told in str(found)


def test_an_answer_that_is_no_json_is_told_as_it_is() -> None:
    request = httpx.Request("GET", "https://management.azure.com/x")
    assert "<html>" in str(from_answer(httpx.Response(502, content=b"<html>", request=request), "GET x"))


def test_an_operation_that_failed_tells_the_innermost_reason() -> None:
    inner = {"code": "VmSize", "message": "Not enough quota available for Standard_DS3_v2"}
    outer = {"code": "InferencingClientCreateDeploymentFailed", "message": "failed", "details": [inner]}
    found = from_operation({"status": "Failed", "error": outer}, "PUT d")
    assert type(found) is QuotaError
    assert "Standard_DS3_v2" in str(found)


def test_only_a_conflict_that_passes_is_waited_for() -> None:
    passing = {"error": {"code": "Conflict", "message": "endpoint is in Updating provisioning state"}}
    assert is_updating(answered(409, passing))
    assert not is_updating(answered(409, {"error": {"code": "UserError", "message": "another path"}}))
    assert not is_updating(answered(400, passing))


@pytest.mark.parametrize(
    ("status", "inner", "content", "kind"),
    [
        (424, "422", {"code": "model_run", "error": "The model refused."}, ModelRunError),
        (424, "504", {"code": "deadline", "error": "Too late."}, DeadlineError),
        (424, "503", {"detail": "x"}, NotReadyError),
        (408, "", {"error": {"code": "RequestTimeout", "message": "x"}}, DeadlineError),
        (429, "", {"error": {"code": "TooManyRequests", "message": "x"}}, OverloadedError),
        (401, "", {"error": {"code": "Unauthorized", "message": "key_auth_access_denied"}}, AccessDeniedError),
        (404, "", {"error": {"code": "NotFound", "message": "No valid deployments"}}, DeploymentNotFoundError),
    ],
)
def test_a_refusal_of_the_scoring_door_is_one_of_ours(
    status: int, inner: str, content: dict[str, Any], kind: type[ModelServeError]
) -> None:
    headers = {"ms-azureml-model-error-statuscode": inner} if inner else {}
    assert type(from_score(answered(status, content, headers))) is kind


def test_the_policy_allows_what_the_backend_does() -> None:
    import fnmatch

    found = policies.policy(WORKSPACE, options())
    allowed = found["deployer"]["Actions"]
    needed = (*NEEDED_ACTIONS, *NEEDED_BATCH_ACTIONS)
    assert [one for one in needed if not any(fnmatch.fnmatchcase(one, pattern) for pattern in allowed)] == []
    assert found["deployer"]["AssignableScopes"] == [WORKSPACE.group]
    mine = policies.policy(WORKSPACE, options(identity="/i"))["endpoint's identity"]
    assert [one["role"] for one in mine["roles"]] == ["AcrPull", "Storage Blob Data Reader"]


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(options(client_id="c", client_secret="hush", proxy="http://u:hush@h"))


def test_opening_the_backend_loads_none_of_microsofts_packages() -> None:
    program = (
        "import sys\n"
        "from modelserve.backend import open_backend\n"
        "open_backend('azureml', {'subscription': 's', 'resource_group': 'g', 'workspace': 'w'})\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'azure', 'msal', 'requests', 'jsonschema'}])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
