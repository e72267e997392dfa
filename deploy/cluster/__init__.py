"""A real Kubernetes on this machine, for tests and for trying things: see docs/kubernetes.md.

`binaries` builds the programs once, `place` says where one cluster's files and addresses are, `config` writes
what its programs read, `init` is the first process of its namespaces, `lifecycle` starts and removes it.
Nothing of it is part of what users install.
"""
