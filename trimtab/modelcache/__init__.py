"""A model cache on each node: its second pod of a model downloads nothing, and needs no registry.

`client` is the pod's side, with nothing but Python's own library; `server` is a pod of ours on each node,
`shelf` its files, `words` what both say. Registries' credentials stay in the pods: they fetch a model, and
bring it here.
"""
