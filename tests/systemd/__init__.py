"""A Kubernetes node that is a whole machine, as users have it: it boots systemd, and all its cgroups are cgroup2."""
