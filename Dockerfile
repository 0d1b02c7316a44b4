# The agent's and the controller's image. BASE is any Debian bookworm.
#     docker build -t REGISTRY/localredirect:0.2.0 .
#     buildah bud -t REGISTRY/localredirect:0.2.0 .
ARG BASE=docker.io/library/debian:bookworm-slim

# --- packages of PyPI, without pip
FROM ${BASE} AS packages
RUN apt-get update -q \
 && apt-get install -yq --no-install-recommends ca-certificates python3-pip
COPY requirements.txt /
# kubernetes.aio is the client once more, for asyncio: nothing of ours uses it, nor what it alone needs.
RUN python3 -m pip install --no-cache-dir --no-compile --disable-pip-version-check --root-user-action=ignore \
        --target=/packages --requirement=/requirements.txt \
 && cd /packages \
 && rm -rf bin kubernetes/aio aiohttp* aiosignal* aiohappyeyeballs* attr attrs* frozenlist* multidict* propcache* yarl*

# --- the distribution's BCC, which is made for the distribution's Python, with its compiler: libLLVM and libclang
FROM ${BASE} AS system
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends libbpf1 python3-bpfcc \
 && ln -s python3 /usr/bin/python
COPY --from=packages /packages /usr/local/lib/python3.11/dist-packages
# Compiled is what a start imports, which then takes a tenth of a second; of the API's many models none is imported
# before it is used. Then goes what a running container has no use for. perl is the last, the others' scripts use it.
RUN export DEBIAN_FRONTEND=noninteractive \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -x 'kubernetes/client/(api|models)/' \
        /usr/local/lib/python3.11/dist-packages \
 && cd /usr/lib/python3.11 \
 && rm -rf ensurepip idlelib lib2to3 pydoc_data test turtledemo \
 && rm -rf /usr/lib/*/gconv /usr/share/bash-completion /usr/share/bug /usr/share/info /usr/share/lintian \
        /usr/share/locale /usr/share/man \
 && find /usr/share/doc -type f ! -name copyright -delete \
 && dpkg --purge --force-depends --force-remove-essential apt debian-archive-keyring e2fsprogs gpgv libapt-pkg6.0 \
        libext2fs2 libss2 logsave openssl tzdata \
 && dpkg --purge --force-depends --force-remove-essential perl-base \
 && rm -rf /tmp/* /var/cache/* /var/lib/apt /var/log/*

FROM system AS app
WORKDIR /app
COPY LICENSE run.py ./
COPY actors actors
COPY bpf bpf
COPY config config
COPY k8s k8s
# Fails the build, not a node, when something went that is needed.
RUN python -m compileall -q --invalidation-mode unchecked-hash . \
 && python run.py --help >/dev/null \
 && python -c 'import actors.agent_wiring, bcc, k8s.commands.uninstall'

# --- two layers: all of the system without what was removed, and ours, which is all that a new release brings anew
FROM scratch
COPY --from=system / /
COPY --from=app /app /app
LABEL org.opencontainers.image.title=LocalRedirect \
      org.opencontainers.image.version=0.2.0 \
      org.opencontainers.image.licenses=Apache-2.0
WORKDIR /app
# The root file system may be read-only; whatever needs to write uses /tmp.
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin \
    LANG=C.UTF-8 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "run.py"]
