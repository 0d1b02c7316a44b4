"""`make versions`: the tests that need an API server and no node, on other versions of Kubernetes."""
