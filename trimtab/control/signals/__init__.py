"""What the pods, the kernel and DCGM tell of each pod: pages of metrics in, `PodSignal`s out. Pure."""
