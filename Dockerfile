# t3ssfast for CPUs. Not built yet: this file was only checked with hadolint.
#
#   docker build -t t3ssfast .
#   docker run --rm -v "$PWD:/data" t3ssfast detect tomogram.mrc -o found/

FROM python:3.11-slim-trixie AS build
# PyTorch without CUDA; a local version such as 2.13.0+cpu satisfies ==2.13.0.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    SKBUILD_CMAKE_DEFINE=T3SSFAST_CUDA=OFF
# Versions of Debian's packages follow from the image; older ones are removed from its archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /usr/local/t3ssfast
WORKDIR /source
COPY . .
RUN /usr/local/t3ssfast/bin/pip install -c constraints.txt '.[openvino,zarr,formats,train]'

FROM python:3.11-slim-trixie
# The OpenMP library of GCC, which the kernels use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 t3ssfast
COPY --from=build /usr/local/t3ssfast /usr/local/t3ssfast
ENV PATH=/usr/local/t3ssfast/bin:$PATH \
    OMP_WAIT_POLICY=passive
USER 1000
WORKDIR /data
ENTRYPOINT ["t3ssfast"]
CMD ["--help"]
