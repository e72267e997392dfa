# The runtime `mlflow`: brings a model, makes its environment or uses this one, and serves it.
# With PACKAGES="xgboost torch" models find them under `env_manager: local`.
ARG BASE=docker.io/library/python:3.12-slim
FROM ${BASE}
# Of the machine that builds, where it needs them: certificates, and an index of its own.
ARG PIP_CERT
ARG SSL_CERT_FILE
ARG UV_DEFAULT_INDEX
ARG PACKAGES=""
ENV PATH=/opt/trimtab/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true
COPY uv.txt mlflow.txt requirements.lock /build/
RUN --mount=type=cache,target=/root/.cache/uv python3 -m venv /opt/trimtab \
    && pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r /build/uv.txt \
    && UV_LINK_MODE=copy uv pip install --quiet --compile-bytecode --python /opt/trimtab/bin/python \
        --requirements /build/mlflow.txt ${PACKAGES} --constraints /build/requirements.lock
COPY trimtab-*.whl /build/
RUN uv pip install --quiet --no-cache --compile-bytecode --no-deps --python /opt/trimtab/bin/python \
    /build/trimtab-*.whl
# Libraries ask who they are, and some fail if nobody knows.
RUN echo 'trimtab:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd
USER 65532:65532
ENTRYPOINT ["python", "-m", "trimtab.prepare"]
