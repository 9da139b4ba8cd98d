# One image for every role. `scripts/image` builds it; so does: docker build -t potd .
#
# On Linux torch comes with CUDA, which is several gigabytes and serves GPU rigs. For another build of it put its wheel
# into wheels/ beside this file, or say where pip finds it: --build-arg PIP_EXTRA_INDEX_URL=...

ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
# Some of libp2p's dependencies have no wheels.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgmp-dev make \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS=/src/wheels
RUN python3 -m venv /opt/potd
# The dependencies first: they change less often than potd, and this layer is the large one.
COPY constraints.txt setup.cfg pyproject.toml README.md LICENSE /src/
COPY potd/__init__.py /src/potd/
# A folder that need not be there, beside a file that is.
COPY LICENSE wheel[s] /src/wheels/
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
    && useradd --uid 10001 --home-dir /data --shell /usr/sbin/nologin potd \
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
