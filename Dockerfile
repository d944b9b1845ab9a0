# ggserve for the CPU:  docker build -t ggserve:cpu .
# Dockerfile.cuda and Dockerfile.opencl are for cards; a test holds the lines that they share with this file equal.
ARG BASE=python:3.13-slim-trixie@sha256:ffb752e139c0a19692a43af8d8523b274222dd68eebad5d583b45c2201c6e30a

FROM ${BASE} AS build
# Debian removes old versions from its index, so pinning versions would break later builds.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV GGSERVE_CACHE=/var/cache/build
# 1: for the processor that builds the image (fastest). 0: for any processor, if the image is to run elsewhere.
ARG GGSERVE_NATIVE=1
RUN python -m venv /opt/ggserve && GGSERVE_BACKENDS=cpu /opt/ggserve/bin/pip install --no-cache-dir .

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home ggserve && install -d -o ggserve /models /var/cache/ggserve
COPY --from=build /opt/ggserve /opt/ggserve
# Drivers keep compiled kernels below HOME; the root file system may be read-only.
ENV PATH=/opt/ggserve/bin:$PATH HOME=/var/cache/ggserve GGSERVE_CACHE=/var/cache/ggserve \
    HF_HOME=/var/cache/ggserve/huggingface GGSERVE_HOST=0.0.0.0 GGSERVE_PORT=8080
USER 10001:10001
WORKDIR /models
VOLUME ["/models", "/var/cache/ggserve"]
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=4 \
    CMD ["python", "-m", "server.health_check"]
ENTRYPOINT ["ggserve"]
CMD ["serve"]
