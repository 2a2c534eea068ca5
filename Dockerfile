# One image for every role: docker run guishu serve, relay, enforce, project, clock, migrate, ...

FROM python:3.13-slim AS built
RUN python -m pip install --quiet --no-cache-dir --root-user-action=ignore uv
WORKDIR /build
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN uv venv --quiet /opt/guishu
ENV VIRTUAL_ENV=/opt/guishu
COPY pyproject.toml README.md LICENSE requirements.lock ./
# Only what it runs with, in the versions of the lock file and with its hashes; the lock file has
# the tools of the developers too.
RUN uv pip install --quiet --requirements pyproject.toml --constraints requirements.lock
COPY ledger ledger
COPY projections projections
COPY consumers consumers
COPY api api
COPY migrations migrations
RUN uv pip install --quiet --no-deps .

FROM python:3.13-slim
# Nobody in the container is root, and the program cannot change itself.
RUN useradd --system --uid 10001 --home-dir /var/lib/guishu --create-home guishu
COPY --from=built /opt/guishu /opt/guishu
ENV PATH=/opt/guishu/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/guishu
EXPOSE 8000
ENTRYPOINT ["guishu"]
CMD ["--help"]
