"""A limit shared out over several Envoys, each of which counts for itself. Pure.

Of N Envoys each gets a whole N-th. What is left over, fewer than N, goes to as many of them, one each: for
each cluster to others, so that no Envoy has more of everything. Together they let through exactly the limit,
and one each where it is smaller than their number: an Envoy could serve nothing otherwise.
"""

from __future__ import annotations

from zlib import crc32


def share(limit: int, envoys: int, rank: int | None, cluster: str) -> int:
    """What of `limit` the Envoy `rank` (0 to `envoys` - 1) lets through to a pod of `cluster`; at least 1.

    Without a rank, what every one of them has at least.
    """
    whole, over = divmod(limit, max(1, envoys))
    more = rank is not None and (rank + crc32(cluster.encode())) % max(1, envoys) < over
    return max(1, whole + more)
