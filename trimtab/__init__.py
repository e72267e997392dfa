"""trimtab: self-tuning model serving on Envoy. Bring a model and a concurrency range."""

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.0.0"  # of a source tree that nobody installed
for _distribution in ("trimtab-runtime", "trimtab"):  # the first is all there is in a model's environment
    try:
        __version__ = version(_distribution)
    except PackageNotFoundError:
        continue
