"""trimtab: self-tuning model serving on Envoy. Bring a model and a concurrency range."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trimtab")
except PackageNotFoundError:  # imported from a source tree that nobody installed
    __version__ = "0.0.0"
