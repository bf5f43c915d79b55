"""The Open Inference Protocol v2 by gRPC. Imported only where a server is to speak it."""

from modelserve.errors import MissingExtraError

try:
    from modelserve.runtime.server.rpc.front import Front
except ModuleNotFoundError as error:
    if error.name != "grpc":
        raise
    raise MissingExtraError(
        'Serving gRPC needs grpcio. Install it with: pip install "modelserve[grpc]"; or leave out --grpc-port.'
    ) from error

__all__ = ["Front"]
