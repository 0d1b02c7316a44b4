"""The domain's words: what is redirected, from where to where, and how objects are told apart.

The ground floor: everything may import it, and it imports nothing of ours. It lives in `config/` because the top level
of the repository is fixed, and `config/` is the floor below all others.
"""
