ARG REGISTRY
FROM ${REGISTRY}/busybox
SHELL ["/usr/bin/env", "NAME=of shell", "/bin/sh", "-ec"]
RUN echo "$NAME" > /name
SHELL ["/bin/sh", "-c"]
HEALTHCHECK --retries=2 CMD test -f /name
SHELL ["pwsh", "-Command", "$ErrorActionPreference = 'Stop';"]
CMD Get-Content /name
