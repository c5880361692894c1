# The cloud on vLLM, on NVIDIA GPUs. Build from the top of the repository:
#   docker build -f deploy/vllm.Dockerfile -t pd-server-vllm .
# With vLLM's CPU build instead:
#   --build-arg REQUIREMENTS=deploy/vllm/requirements.txt --build-arg OVERRIDES=deploy/vllm/overrides.txt
# Installs only the roots it needs (core, proto, server).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG REQUIREMENTS=deploy/vllm/requirements-gpu.txt
# A file of versions that go before what packages ask for.
ARG OVERRIDES=""
# Further arguments of uv, for example to choose another build of torch.
ARG UV_EXTRA_ARGS=""
# What is installed: "server,otel" can also send traces.
ARG EXTRAS=server
WORKDIR /src
RUN python3 -m venv /opt/pd \
    && /opt/pd/bin/python -m pip install --no-cache-dir --disable-pip-version-check 'uv>=0.9,<1'
# Dependencies first, against an empty package: this layer changes only with pyproject.toml.
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY deploy/vllm ./deploy/vllm
# UV_EXTRA_ARGS is a list of words.
# hadolint ignore=SC2086
RUN mkdir -p core/pd_core && touch core/pd_core/__init__.py \
    && PD_KERNEL=off /opt/pd/bin/uv pip install --no-cache --python /opt/pd/bin/python \
        ${OVERRIDES:+--override "$OVERRIDES"} ${UV_EXTRA_ARGS} \
        --requirements "$REQUIREMENTS" ".[${EXTRAS}]"
COPY core ./core
COPY proto ./proto
COPY server ./server
# hadolint ignore=SC2086
RUN /opt/pd/bin/uv pip install --no-cache --python /opt/pd/bin/python ${UV_EXTRA_ARGS} \
        --no-deps --reinstall-package pd-device .

FROM ${BASE}
# Triton and torch.compile build small C programs while the model loads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 pd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pd
# A new volume takes over the owner of the folder that it is mounted on.
RUN install --directory --owner 10001 --group 10001 /models /cache
COPY --from=build /opt/pd /opt/pd
COPY deploy/healthcheck.py /opt/pd/healthcheck.py
# /cache is worth a volume: what was compiled is found again at the next start. All else that is
# written goes to /tmp, so the root may be read-only.
ENV PATH=/opt/pd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/cache \
    XDG_CONFIG_HOME=/tmp/config \
    VLLM_CACHE_ROOT=/cache/vllm \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton \
    CUDA_CACHE_PATH=/cache/cuda \
    PD_MODELS_DIR=/models \
    PD_SERVER_ENGINE=vllm \
    PD_SERVER_HOST=0.0.0.0 \
    PD_SERVER_GRPC_PORT=50051 \
    PD_SERVER_HTTP_PORT=8080
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
# Loading and compiling takes minutes, and longer the first time.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["/opt/pd/bin/python", "/opt/pd/healthcheck.py"]
# The module, not the console script: a partial install has every script but not every module.
ENTRYPOINT ["/opt/pd/bin/python", "-m", "pd_server"]
