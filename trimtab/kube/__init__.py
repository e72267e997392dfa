"""The API server of Kubernetes, as the adapters above need it: calls that explain themselves, and mirrors."""

from trimtab.kube.api import Api, Json, Resource
from trimtab.kube.lease import Holder, Lease
from trimtab.kube.watch import Key, Mirror, Selection
from trimtab.kube.work import Work

__all__ = ["Api", "Holder", "Json", "Key", "Lease", "Mirror", "Resource", "Selection", "Work"]
