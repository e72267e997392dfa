"""All that runs inside a pod, and `catalog`: what each kind of pod is."""
