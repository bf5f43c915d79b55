"""The runtime's image in the workspace's registry: looked for there, and built and pushed where it is missing."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from modelserve.backend import raising_ours
from modelserve.backend.transport import HTTPX_ERRORS
from modelserve.errors import AccessDeniedError, ConfigError
from modelserve.image import Login
from modelserve_azureml.arm import HOST
from modelserve_azureml.credentials import Credentials
from modelserve_azureml.reach import Reach
from modelserve_azureml.site import Site

REPOSITORY = "modelserve"
_CALL_S = 30.0


def runtime_image(site: Site, credentials: Credentials, reach: Reach, tell: Callable[[str], None]) -> str:
    """The image's name, by digest; the option's where one is given.

    Raises:
        ConfigError: the workspace has no registry, and none was named.
        AccessDeniedError: the registry does not let us.
    """
    if site.options.image:
        return site.options.image
    # Loaded here: whoever names an image needs no builder.
    from modelserve.image import Recipe, Reference, Through, ensure

    own = registry(site)
    recipe = Recipe(base=Reference.parse(site.options.base_image)) if site.options.base_image else Recipe()
    by = Through(login(own, site, credentials, reach), reach.for_httpx())
    return str(ensure(f"{own}/{REPOSITORY}", recipe, credentials=by, on_progress=tell))


def login(own: str, site: Site, credentials: Credentials, reach: Reach) -> Callable[[str], Login | None]:
    """Who we are to our registry. It is asked for the base image's registry too, which is another's."""
    from modelserve.image import RefreshToken

    def logged_in(registry: str) -> Login | None:
        if registry != own:
            return None
        return RefreshToken(refresh_token(registry, site.options.tenant, credentials, reach))

    return logged_in


def registry(site: Site) -> str:
    """The host of the registry that images go to."""
    if site.options.registry:
        return site.options.registry
    attached = site.arm.ask("GET", site.workspace.path)["properties"].get("containerRegistry") or ""
    if not attached:
        raise ConfigError(
            f"Workspace {site.workspace.name!r} has no container registry. Attach one (az ml workspace update "
            "--container-registry ID), or give the option registry or image."
        )
    return f"{attached.rpartition('/')[2].lower()}.azurecr.io"


def refresh_token(host: str, tenant: str, credentials: Credentials, reach: Reach) -> str:
    """What the registry gives for our token, to be exchanged for one of each repository.

    https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
    """
    form = {"grant_type": "access_token", "service": host, "access_token": credentials.token(f"{HOST}/.default")}
    if tenant:
        form["tenant"] = tenant
    with (
        raising_ours(HTTPX_ERRORS, f"Signing in to {host}"),
        httpx.Client(timeout=_CALL_S, **reach.for_httpx()) as client,
    ):
        answer = client.post(f"https://{host}/oauth2/exchange", data=form)
    if not answer.is_success:
        raise AccessDeniedError(
            f"Registry {host!r} does not let us in ({answer.status_code}). The role AcrPush on it is needed."
        )
    return str(answer.json()["refresh_token"])
