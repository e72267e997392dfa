"""The control plane on Kubernetes: ServingEndpoints are its endpoints, the API server its store."""
