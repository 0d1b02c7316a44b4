"""A real Kubernetes for tests: binaries, images, a control plane, a whole node."""
