"""The domain's words: what is redirected, from where to where, and the keys that identify objects.

Everything may import it, and it imports nothing of ours.
"""
