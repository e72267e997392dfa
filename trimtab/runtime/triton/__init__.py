"""Starting the real tritonserver in a pod."""
