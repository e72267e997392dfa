"""What comes compressed, over REST and over gRPC."""

from __future__ import annotations

import zlib

from trimtab.runtime.mlflow.open_inference.messages import Refused

_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def inflated(data: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """The data as it was, at most `bytes_max`. Raises Refused."""
    window = _WINDOWS.get(encoding)
    if window is None:
        raise Refused(f"unknown compression {encoding.decode('latin-1')!r}; gzip and deflate are known", 415)
    inflating = zlib.decompressobj(window)
    try:
        found = inflating.decompress(data, bytes_max)
    except zlib.error as error:
        raise Refused(f"what was sent cannot be decompressed: {error}") from error
    if inflating.unconsumed_tail:
        raise Refused(f"what was sent is larger than {bytes_max >> 20} MiB once decompressed", 413)
    if not inflating.eof:
        raise Refused("what was sent is compressed, and ends too early")
    return found
