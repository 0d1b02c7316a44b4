"""The version of this release: the one place that decides it.

Files that can't import it repeat it: k8s/chart/Chart.yaml, k8s/install.yaml, Dockerfile and the commands in the
documents. tests/unit/test_version.py names those that differ.
"""

VERSION = "0.3.0"
