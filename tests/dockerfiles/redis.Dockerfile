ARG REGISTRY
FROM ${REGISTRY}/debian
# add our user and group first to make sure their IDs get assigned consistently
RUN set -eux; \
# alpine already has a gid 999, so we use the next one
	echo 'redis:x:999:' >> /etc/group; \
	echo 'redis:x:999:999::/home/redis:/bin/sh' >> /etc/passwd
ENV GOSU_VERSION 1.17
RUN set -eux; \
	arch="$(uname -m)"; \
	case "$arch" in \
		'x86_64') url='https://example.com/gosu-amd64' ;; \
		*) echo >&2 "error: unsupported architecture: '$arch'"; exit 1 ;; \
	esac; \
	mkdir -p /usr/local/bin; cp /bin/true /usr/local/bin/gosu; \
	chmod +x /usr/local/bin/gosu; \
	gosu nobody true
ENV REDIS_VERSION 7.4.1
RUN set -eux; \
	mkdir -p /usr/src/redis; \
	echo "$REDIS_VERSION" > /usr/src/redis/version; \
	cp /usr/src/redis/version /usr/local/bin/redis-server; \
	ln -svf redis-server /usr/local/bin/redis-sentinel; \
	rm -r /usr/src/redis
RUN mkdir /data && chown redis:redis /data
VOLUME /data
WORKDIR /data
COPY app/main.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
CMD ["redis-server"]
