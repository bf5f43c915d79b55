"""Long operations of the stand-in: each works in a thread, is listed under its resource, and is never forgotten."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from google.api_core import exceptions as google_errors
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.rpc import code_pb2, status_pb2

_FIRST = 1000
Stage = Callable[[str], None]
Work = Callable[[Stage], Any]


class Operations:
    """All operations, done or not.

    Attributes:
        seconds: How long each takes beside its work.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._numbers = itertools.count(_FIRST)
        self._lock = threading.Lock()
        self._found: dict[str, operations_pb2.Operation] = {}
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def start(self, resource: str, metadata: Any, work: Work) -> operations_pb2.Operation:
        """Begin one under `resource`; `work` gives its response, or raises what it failed with."""
        name = f"{resource}/operations/{next(self._numbers)}"
        operation = operations_pb2.Operation(name=name)
        operation.metadata.Pack(metadata.pb(metadata()))
        with self._lock:
            self._found[name] = operation
            started = _copy(operation)
        thread = threading.Thread(target=self._run, args=(operation, metadata, work), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return started

    def get(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        with self._lock:
            if request.name not in self._found:
                raise google_errors.NotFound(f"Operation {request.name} not found")
            return _copy(self._found[request.name])

    def list(self, request: operations_pb2.ListOperationsRequest) -> operations_pb2.ListOperationsResponse:
        """Those of one resource; the filter `done=false` leaves out those that are done."""
        wants_running = "done=false" in request.filter.replace(" ", "")
        with self._lock:
            found = [
                _copy(one)
                for name, one in self._found.items()
                if name.startswith(f"{request.name}/operations/") and not (wants_running and one.done)
            ]
        return operations_pb2.ListOperationsResponse(operations=found)

    def cancel(self, _request: Any) -> empty_pb2.Empty:
        """Accepted, and without effect: deploys were reported to go on."""
        return empty_pb2.Empty()

    def close(self) -> None:
        """Wait for what is under way."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _run(self, operation: operations_pb2.Operation, metadata: Any, work: Work) -> None:
        def reach(stage: str) -> None:
            told = metadata(deployment_stage=stage)
            with self._lock:
                operation.metadata.Pack(metadata.pb(told))

        self._closing.wait(self.seconds)
        try:
            response = work(reach)
        except google_errors.GoogleAPICallError as error:
            failure = status(error)
        except Exception as error:  # noqa: BLE001  # whoever asks for the operation sees it, as a fault of the service
            failure = status_pb2.Status(code=code_pb2.INTERNAL, message=repr(error))
        else:
            with self._lock:
                operation.response.Pack(plain(response))
                operation.done = True
            return
        with self._lock:
            operation.error.CopyFrom(failure)
            operation.done = True


def status(error: google_errors.GoogleAPICallError) -> status_pb2.Status:
    """An error as the resources and operations of the API hold it."""
    code = error.grpc_status_code.value[0] if error.grpc_status_code else code_pb2.UNKNOWN
    return status_pb2.Status(code=code, message=error.message)


def plain(message: Any) -> Any:
    """The protobuf message behind a proto-plus one."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def _copy(operation: operations_pb2.Operation) -> operations_pb2.Operation:
    copy = operations_pb2.Operation()
    copy.CopyFrom(operation)
    return copy
