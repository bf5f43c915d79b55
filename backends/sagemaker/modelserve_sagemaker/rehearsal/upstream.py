"""moto, for the services around SageMaker: S3, STS, IAM, ECR, CloudWatch, Logs.

It runs in this process, on a port of its own; its state is the process's, so each stand-in starts with an empty one.
"""

from __future__ import annotations

import threading
from typing import Any

import boto3
import httpx
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from modelserve.standin.loopback import Answered, Exchange

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "server", "date"}


class Upstream:
    """moto's server, and clients of it for the stand-in's own use."""

    def __init__(self, region: str) -> None:
        self._region = region
        application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="modelserve-moto", daemon=True)
        self._thread.start()
        self._url = f"http://127.0.0.1:{self._server.server_port}"
        self._http = httpx.Client(base_url=self._url, trust_env=False, timeout=60)
        self._clients: dict[str, Any] = {}
        self._http.post("/moto-api/reset").raise_for_status()

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self._url,
                region_name=self._region,
                aws_access_key_id="standin",
                aws_secret_access_key="standin",  # noqa: S106  # moto asks for none that is secret
            )
        return self._clients[service]

    def forward(self, exchange: Exchange) -> Answered:
        """Moto's answer to a request that is not for SageMaker."""
        headers = {name: value for name, value in exchange.headers.items() if name not in _HOP_BY_HOP}
        answer = self._http.request(exchange.method, exchange.raw_path, headers=headers, content=exchange.body)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        if exchange.method == "HEAD" and "content-length" in answer.headers:
            kept["content-length"] = answer.headers["content-length"]
        return Answered(answer.status_code, answer.content, kept)

    def close(self) -> None:
        self._http.close()
        for client in self._clients.values():
            client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # werkzeug's name
        pass
