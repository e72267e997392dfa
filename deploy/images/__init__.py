"""Images of the control plane, Envoy and the runtime `mlflow`: a Dockerfile each.

`context` writes what they copy, `build` makes archives of them by buildah, on a base that debootstrap made,
for machines that have neither a registry nor a container engine. With either, any builder does: see
docs/kubernetes.md.
"""
