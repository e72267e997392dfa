"""Pods on Kubernetes: a Deployment for each revision. See `fleet.KubernetesFleet`."""

from trimtab.fleet.kubernetes.attendants import Callers
from trimtab.fleet.kubernetes.fleet import KubernetesFleet
from trimtab.fleet.kubernetes.template import Images

__all__ = ["Callers", "Images", "KubernetesFleet"]
