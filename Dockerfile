# CPU:  docker build -t fooocusapi .
# CUDA: docker build --build-arg DEVICE=cuda -t fooocusapi:cuda .
# The registry's torch brings its own CUDA libraries, so both variants share one Python environment;
# what differs is the base image, which for CUDA declares the driver capabilities the container needs.
ARG DEVICE=cpu

FROM python:3.11-slim AS base-cpu
FROM python:3.11-slim AS base-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM base-${DEVICE}
WORKDIR /app
RUN pip install --no-cache-dir uv && useradd --create-home --uid 1000 fooocus && chown fooocus /app
USER fooocus
COPY --chown=fooocus pyproject.toml constraints.txt ./
# Compiled here: each container would do it anew at its start, which takes longer than the imports themselves.
RUN uv venv && uv pip install --no-cache --compile-bytecode -r pyproject.toml -c constraints.txt
COPY --chown=fooocus main.py LICENSE ./
COPY --chown=fooocus fooocus_core fooocus_core
COPY --chown=fooocus fooocusapi fooocusapi
RUN .venv/bin/python -m compileall -q fooocus_core fooocusapi
# Made here, by the user of the server: Docker would make them as root, and nothing could be written.
RUN mkdir models outputs styles wildcards presets
VOLUME ["/app/models", "/app/outputs"]
EXPOSE 8888
HEALTHCHECK --interval=10s --start-period=5s CMD [".venv/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8888/ping', timeout=5)"]
ENTRYPOINT [".venv/bin/python", "main.py", "--host", "0.0.0.0"]
