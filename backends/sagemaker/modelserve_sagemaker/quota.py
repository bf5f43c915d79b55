"""Whether the account may have the machines that are asked for."""

from __future__ import annotations

from modelserve.backend.preflight import OnlyLive
from modelserve.errors import AccessDeniedError, BackendError, QuotaError
from modelserve_sagemaker.clients import Account


def require_quota(account: Account, instance_type: str, purpose: str, wanted: int) -> str:
    """What is found, for people.

    Args:
        purpose: "endpoint" or "transform job".

    Raises:
        QuotaError: it may have fewer.
        OnlyLive: that cannot be seen from here.
    """
    name = f"{instance_type} for {purpose} usage"
    try:
        quotas = account.pages("service-quotas", "list_service_quotas", "Quotas", ServiceCode="sagemaker")
    except (AccessDeniedError, BackendError) as error:
        raise OnlyLive(f"The account's quotas could not be read ({error})") from error
    value = next((quota["Value"] for quota in quotas if quota["QuotaName"] == name), None)
    if value is None:
        raise OnlyLive(f"AWS lists no quota {name!r}.")
    if value < wanted:
        raise QuotaError(
            f"The account may have {value:g} machines of {instance_type!r} for {purpose}s, asked are {wanted}. "
            "Ask AWS for more (Service Quotas), or choose another machine."
        )
    return f"{value:g} machines of {instance_type} may be used; asked for: {wanted}."
