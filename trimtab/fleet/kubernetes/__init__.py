"""Pods on Kubernetes: a Deployment for each revision. See `fleet.KubernetesFleet`."""

from trimtab.fleet.kubernetes.attendants import Callers
from trimtab.fleet.kubernetes.envoys import Envoys, Sized, parse_sized
from trimtab.fleet.kubernetes.exporters import Exporters
from trimtab.fleet.kubernetes.fleet import KubernetesFleet, mirror_of_pods
from trimtab.fleet.kubernetes.placeholders import Placeholders, Warm, parse_shapes
from trimtab.fleet.kubernetes.template import BRING_IMAGE, HOLD_IMAGE, HOSTNAME, TAKEN_PORTS, Images

__all__ = [
    "BRING_IMAGE",
    "HOLD_IMAGE",
    "HOSTNAME",
    "TAKEN_PORTS",
    "Callers",
    "Envoys",
    "Exporters",
    "Images",
    "KubernetesFleet",
    "Placeholders",
    "Sized",
    "Warm",
    "mirror_of_pods",
    "parse_shapes",
    "parse_sized",
]
