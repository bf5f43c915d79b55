"""HTTP/1.1: bytes on a connection ⇄ requests and responses. Knows nothing of models."""
