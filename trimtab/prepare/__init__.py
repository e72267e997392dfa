"""What a pod on Kubernetes does before its server starts: bring the model, find or make its environment.

Run as `python -m trimtab.prepare`, it becomes the server in the end. Locally the command line and the control
plane do the same ahead of any pod.
"""
