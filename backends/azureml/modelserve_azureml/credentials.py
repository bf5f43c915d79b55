"""Who calls: azure-identity's credentials, with tokens kept until shortly before their end."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from modelserve.backend import raising_ours
from modelserve.errors import MissingExtraError
from modelserve_azureml.errors import azure_errors
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.reach import Reach

_EARLY_S = 300


class Credentials:
    """Gives tokens by scope. May be used from many threads.

    Args:
        credential: Anything with azure-core's `get_token`; by default what the options and the machine offer.
    """

    def __init__(self, options: AzureMLOptions, reach: Reach, credential: Any = None) -> None:
        self._options = options
        self._reach = reach
        self._lock = threading.Lock()
        self._credential = credential
        self._tokens: dict[str, Any] = {}

    @property
    def credential(self) -> Any:
        """The credential itself, for Microsoft's clients."""
        with self._lock:
            if self._credential is None:
                self._credential = _credential(self._options, self._reach)
                weakref.finalize(self, self._credential.close)
            return self._credential

    def token(self, scope: str) -> str:
        """A token that is good for minutes at least.

        Raises:
            AccessDeniedError: nobody is signed in, or the sign-in was refused.
        """
        credential = self.credential
        with self._lock:
            known = self._tokens.get(scope)
            if known is None or known.expires_on - _EARLY_S < time.time():
                with raising_ours(azure_errors(), f"Signing in to Azure for {scope}"):
                    known = self._tokens[scope] = credential.get_token(scope)
            return str(known.token)


def _credential(options: AzureMLOptions, reach: Reach) -> Any:
    # Imported where it is needed: it brings cryptography and a second HTTP client.
    try:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'Signing in to Azure needs azure-identity. Install it with: pip install "modelserve[azureml]"'
        ) from error
    if options.client_id and options.client_secret:
        return ClientSecretCredential(options.tenant, options.client_id, options.client_secret, **reach.for_azure())
    tenant = {"additionally_allowed_tenants": [options.tenant]} if options.tenant else {}
    return DefaultAzureCredential(**tenant, **reach.for_azure())
