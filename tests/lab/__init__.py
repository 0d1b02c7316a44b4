"""A laboratory: network namespaces and cgroups that stand for a node, its Pods and a remote cluster.

The kernel, the sockets and the agent are real. A `Lab` removes everything when it closes, also after a failure.
"""
