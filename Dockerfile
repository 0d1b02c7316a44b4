# The agent's and the controller's image. BASE is any Debian bookworm, by tag or by digest (NAME@sha256:...).
#     docker build -t REGISTRY/localredirect:0.3.0 .
#     buildah bud -t REGISTRY/localredirect:0.3.0 .
ARG BASE=docker.io/library/debian:bookworm-slim

# --- packages of PyPI, without pip
FROM ${BASE} AS packages
RUN apt-get update -q \
 && apt-get install -yq --no-install-recommends ca-certificates python3-pip
# The packages in requirements.txt and all that these need, with the hash of every file (`make lock`).
COPY requirements.lock /
# kubernetes.aio is the same client again, for asyncio. We do not use it. Removing it, and the HTTP library that nothing
# else needs, saves 53 of 106 MB.
RUN python3 -m pip install --no-cache-dir --no-compile --disable-pip-version-check --root-user-action=ignore \
        --target=/packages --require-hashes --requirement=/requirements.lock \
 && cd /packages \
 && rm -rf bin kubernetes/aio aiohttp* aiosignal* aiohappyeyeballs* attr attrs* frozenlist* multidict* propcache* yarl*

# --- the image: layers that change rarely come first, so that a node fetches only one megabyte for a new release
FROM ${BASE}
# BCC and its compiler (libLLVM, libclang) come from the distribution, since they are built for its Python.
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends libbpf1 python3-bpfcc \
 && ln -s python3 /usr/bin/python \
 && rm -rf /var/cache/apt /var/lib/apt/lists /var/log/*
COPY --from=packages /packages /usr/local/lib/python3.11/dist-packages
# Compile what a start imports, so that a start takes a tenth of a second. The client's many models are not compiled,
# since each is imported only when it is used.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x 'kubernetes/client/(api|models)/' \
        /usr/local/lib/python3.11/dist-packages
WORKDIR /app
COPY LICENSE run.py ./
COPY actors actors
COPY bpf bpf
COPY config config
COPY k8s k8s
# If the image lacks something, this makes the build fail, so that no Pod has to.
RUN python -m compileall -q --invalidation-mode unchecked-hash . \
 && python run.py --help >/dev/null \
 && python -c 'import actors.agent_wiring, bcc, k8s.commands.uninstall'
# The root file system may be read-only; whatever needs to write uses /tmp.
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title=LocalRedirect \
      org.opencontainers.image.version=0.3.0 \
      org.opencontainers.image.licenses=Apache-2.0
ENTRYPOINT ["python", "run.py"]
