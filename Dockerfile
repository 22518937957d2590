# Built from the wheel: make wheel && docker build -t file-bucket .
FROM python:3.13-slim

# Its numbers are to be the owner's of what is mounted at /data.
RUN groupadd --gid 1234 file-bucket \
    && useradd --uid 1234 --gid 1234 --no-log-init --home-dir /data file-bucket \
    && install -d -o 1234 -g 1234 -m 0700 /data

COPY dist/file_bucket-*-py3-none-any.whl /tmp/
RUN pip install --no-cache-dir --root-user-action=ignore /tmp/*.whl && rm /tmp/*.whl

USER 1234:1234
VOLUME /data
EXPOSE 1234

# A stranger's 403 is a sign of life. Where it listens with TLS, or elsewhere, say so.
HEALTHCHECK --interval=1m --timeout=10s CMD ["python3", "-c", "\
from http.client import HTTPConnection\n\
asked = HTTPConnection('127.0.0.1', 1234, timeout=5)\n\
asked.request('GET', '/')\n\
raise SystemExit(asked.getresponse().status != 403)"]

# Mount a folder with config.json, whose home is /data, and hooks there.
ENTRYPOINT ["filebucket", "serve", "--config", "/etc/file-bucket/config.json"]
