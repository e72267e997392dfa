"""How much one control plane holds, measured on a real API server with pods that pretend."""
