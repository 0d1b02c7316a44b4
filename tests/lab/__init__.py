"""A laboratory: network namespaces and cgroups of our own that stand for a node, its Pods and a remote cluster.

Real kernel, real sockets, the real agent. Everything is removed when a `Lab` closes, also after a failure.
"""
