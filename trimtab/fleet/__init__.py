"""Where pods live, behind one protocol: as processes of this machine, or on Kubernetes."""
