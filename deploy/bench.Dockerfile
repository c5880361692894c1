# The replay: every root, because the bench starts its own server beside its devices.
# Build from the top of the repository:
#   docker build -f deploy/bench.Dockerfile -t pd-bench .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Further arguments of pip, for example to choose a CPU-only build of torch (see docs/guides/deployment.md).
ARG PIP_EXTRA_ARGS=""
WORKDIR /src
RUN python3 -m venv /opt/pd
# Dependencies first, against an empty package: this layer changes only with pyproject.toml.
COPY pyproject.toml hatch_build.py README.md LICENSE ./
# PIP_EXTRA_ARGS is a list of words.
# hadolint ignore=SC2086
RUN mkdir -p core/pd_core && touch core/pd_core/__init__.py \
    && /opt/pd/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        ${PIP_EXTRA_ARGS} '.[bench]'
COPY core ./core
COPY proto ./proto
COPY server ./server
COPY device_client ./device_client
COPY bench ./bench
# hadolint ignore=SC2086
RUN /opt/pd/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        ${PIP_EXTRA_ARGS} --no-deps --force-reinstall .

FROM ${BASE}
RUN groupadd --gid 10001 pd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pd
# A new volume takes over the owner of the folder that it is mounted on.
RUN install --directory --owner 10001 --group 10001 /models
COPY --from=build /opt/pd /opt/pd
# Everything that is written goes to /tmp, so the root may be read-only.
ENV PATH=/opt/pd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache \
    PD_MODELS_DIR=/models
WORKDIR /tmp
USER 10001:10001
STOPSIGNAL SIGTERM
# A command that measures and ends has no health of its own.
HEALTHCHECK NONE
ENTRYPOINT ["/opt/pd/bin/python", "-m", "pd_bench"]
