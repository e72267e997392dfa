"""trimtab: self-tuning model serving on Envoy. Bring a model and a concurrency range."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.client import AsyncClient, Client, ServingError

__version__ = "0.0.0"  # of a source tree that nobody installed
for _distribution in ("trimtab-runtime", "trimtab"):  # the first is all there is in a model's environment
    try:
        __version__ = version(_distribution)
    except PackageNotFoundError:
        continue

__all__ = ["AsyncClient", "Client", "ServingError", "__version__"]


def __getattr__(name: str) -> Any:
    """The clients, when they are asked for: a pod has no use for what they import, nor is it there."""
    if name not in ("AsyncClient", "Client", "ServingError"):
        raise AttributeError(f"module `trimtab` has no attribute `{name}`")
    from trimtab import client  # noqa: PLC0415

    return getattr(client, name)
