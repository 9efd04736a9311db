ARG REGISTRY
FROM ${REGISTRY}/debian AS builder
ENV PATH /usr/local/bin:$PATH
ENV PYTHON_VERSION 3.13.1
RUN set -eux; \
	mkdir -p /usr/local/bin /usr/local/lib/python3.13/test /usr/local/lib/python3.13/idle_test; \
	printf '#!/bin/sh\necho "Python %s"\n' "$PYTHON_VERSION" > /usr/local/bin/python3.13; \
	chmod +x /usr/local/bin/python3.13; \
	touch /usr/local/lib/python3.13/test/x.py /usr/local/lib/python3.13/a.pyc /usr/local/lib/python3.13/a.py; \
	ln -s python3.13 /usr/local/bin/python3; \
	rm -rf /usr/local/lib/python3.13/test /usr/local/lib/python3.13/idle_test /usr/local/lib/python3.13/*.pyc; \
	python3 --version
# make some useful symlinks that are expected to exist
RUN set -eux; \
	for src in python3; do \
		dst="$(echo "$src" | tr -d 3)"; \
		[ -s "/usr/local/bin/$src" ]; \
		[ ! -e "/usr/local/bin/$dst" ]; \
		ln -svT "$src" "/usr/local/bin/$dst"; \
	done
FROM ${REGISTRY}/debian
COPY --from=builder /usr/local /usr/local
WORKDIR /app
COPY data/*.txt ./
RUN python --version > version
CMD ["python3"]
