"""Reading what people write by hand, the configuration and manifests: bytes to values, field by field, with all faults.

It knows nothing of what the fields mean, and imports nothing of ours.
"""
