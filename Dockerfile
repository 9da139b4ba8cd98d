# One image for every role. Build: docker build -t potd .
#
# Which torch goes in depends on where pip looks: --build-arg PIP_INDEX_URL=... or PIP_EXTRA_INDEX_URL=... chooses.
# Run:    docker run -v potd:/data potd potd init --home /data
#         docker run -v potd:/data -p 4001:4001 potd

ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
# Some of libp2p's dependencies have no wheels for every platform.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev libgmp-dev make pkg-config python3-dev \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN python3 -m venv /opt/potd
# The dependencies first: they change less often than potd, and this layer is the large one.
COPY constraints.txt setup.cfg pyproject.toml README.md LICENSE /src/
COPY potd/__init__.py /src/potd/
RUN /opt/potd/bin/pip install --no-cache-dir --constraint /src/constraints.txt /src \
    && /opt/potd/bin/pip uninstall --yes potd
COPY potd /src/potd
RUN /opt/potd/bin/pip install --no-cache-dir --no-deps /src \
    && /opt/potd/bin/python -m compileall -q /opt/potd/lib/python3*/site-packages/potd

FROM ${PYTHON}
LABEL org.opencontainers.image.title="potd" \
      org.opencontainers.image.description="Idle mining rigs train one model together, and agree on every round by PBFT" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgmp10 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin potd \
    && install -d -o potd -g potd -m 0700 /data
COPY --from=build /opt/potd /opt/potd
ENV PATH=/opt/potd/bin:$PATH \
    PYTHONUNBUFFERED=1
USER potd
VOLUME /data
EXPOSE 4001
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["potd", "status", "--home", "/data"]
# The daemon answers SIGTERM, so it can be process 1.
CMD ["potd", "start", "--home", "/data"]
