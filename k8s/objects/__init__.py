"""Raw Kubernetes objects reduced to the few fields that we use, as frozen values, with every fault by its field. Pure.

May import: `config`.
"""
