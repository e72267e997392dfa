"""The resource `ServingEndpoint`, from the types of the control API: `make crd` writes it."""
