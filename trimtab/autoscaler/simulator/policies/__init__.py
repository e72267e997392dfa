"""The autoscalers that meet in the simulator, one module each; `catalog` finds them by name."""
