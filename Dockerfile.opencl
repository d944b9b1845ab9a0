# ggserve for OpenCL devices (CLBlast):  docker build -f Dockerfile.opencl -t ggserve:opencl .
ARG BASE=python:3.13-slim-trixie@sha256:ffb752e139c0a19692a43af8d8523b274222dd68eebad5d583b45c2201c6e30a

FROM ${BASE} AS build
# Debian removes old versions from its index, so pinning versions would break later builds.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ libclblast-dev ocl-icd-opencl-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV GGSERVE_CACHE=/var/cache/build
# 1: for the processor that builds the image (fastest). 0: for any processor, if the image is to run elsewhere.
ARG GGSERVE_NATIVE=1
RUN python -m venv /opt/ggserve && GGSERVE_BACKENDS=cpu,clblast /opt/ggserve/bin/pip install --no-cache-dir .

FROM ${BASE}
# The card's driver, as a Debian package: mesa-opencl-icd (AMD), intel-opencl-icd (Intel), pocl-opencl-icd (the CPU, for
# tests). NVIDIA's driver comes from the host, through the NVIDIA Container Toolkit; the file written below names it.
ARG OPENCL_DRIVER=mesa-opencl-icd
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends libclblast1 ocl-icd-libopencl1 ${OPENCL_DRIVER} && \
    rm -rf /var/lib/apt/lists/* && \
    mkdir -p /etc/OpenCL/vendors && echo libnvidia-opencl.so.1 >/etc/OpenCL/vendors/nvidia.icd
RUN useradd --uid 10001 --user-group --no-create-home ggserve && install -d -o ggserve /models /var/cache/ggserve
COPY --from=build /opt/ggserve /opt/ggserve
# Drivers keep compiled kernels below HOME; the root file system may be read-only.
ENV PATH=/opt/ggserve/bin:$PATH HOME=/var/cache/ggserve GGSERVE_CACHE=/var/cache/ggserve \
    HF_HOME=/var/cache/ggserve/huggingface GGSERVE_HOST=0.0.0.0 GGSERVE_PORT=8080 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /models
VOLUME ["/models", "/var/cache/ggserve"]
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=4 \
    CMD ["python", "-m", "server.health_check"]
ENTRYPOINT ["ggserve"]
CMD ["serve"]
