# syntax=docker/dockerfile:1
# Two stages: the first builds with pip and a shell, the second has neither.
# Both bases can be replaced (--build-arg), and both must have the same Python: what the first installs runs in the second.
# The digests are moved by .github/dependabot.yml or by hand, as RELEASING.md says; the release verifies their signatures.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:ffb752e139c0a19692a43af8d8523b274222dd68eebad5d583b45c2201c6e30a
ARG RUNTIME_IMAGE=gcr.io/distroless/python3-debian13:nonroot@sha256:0e52dfee02b1aba142e77b004f6ea11210b79456b51f10d70e9bd631cbc21d98

FROM ${PYTHON_IMAGE} AS build
# The same sources give the same bytes: no .pyc with the time of the build in it, no order that depends on hashing.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /src
# Dependencies first: they change less often than the source, and this layer with them.
COPY requirements.lock requirements-build.lock ./
RUN python -m pip install --no-compile --require-hashes --only-binary :all: --target /app -r requirements.lock \
 && python -m pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas ./schemas
COPY sidecar ./sidecar
RUN python -m pip install --no-compile --no-deps --no-build-isolation --target /app . \
 && rm -rf /app/bin \
 && mkdir -p /rootfs/state /rootfs/tmp \
 && python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${RUNTIME_IMAGE}
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG RUNTIME_IMAGE
LABEL org.opencontainers.image.title="gin-sidecar" \
      org.opencontainers.image.description="Observability sidecar and log normalizer for Go services written with Gin" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/gin-sidecar/gin-sidecar" \
      org.opencontainers.image.url="https://gin-sidecar.io" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GIN_SIDECAR_REVISION=${REVISION}
COPY --from=build /app /app
COPY --from=build --chown=65532:65532 /rootfs/ /
WORKDIR /state
USER 65532:65532
EXPOSE 9180
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
  CMD ["/usr/bin/python3", "-m", "sidecar", "healthcheck"]
ENTRYPOINT ["/usr/bin/python3", "-m", "sidecar"]
CMD ["run"]
