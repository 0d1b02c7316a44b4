"""What lookups lose when a DNS server fails, in three ways of serving them, side by side.

python -m tests.bench.losses [--way WAY] [FAULT ...]     all of them, unless named; `make bench` runs all

image     nginx, HAProxy, and the commands of NodeLocal DNSCache
bed       the node with everything that is the same for all ways, and the load
ways      kube-proxy alone, NodeLocal DNSCache's way, ours
faults    what happens to the server
measuring every fault in every way
tables    results -> Markdown
http_load HTTP requests at a constant rate, in a process of its own
"""
