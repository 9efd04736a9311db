ARG REGISTRY
FROM ${REGISTRY}/debian
RUN set -eux; \
	echo 'postgres:x:999:' >> /etc/group; \
	echo 'postgres:x:999:999::/var/lib/postgresql:/bin/bash' >> /etc/passwd; \
	install --verbose --directory --owner postgres --group postgres --mode 1777 /var/lib/postgresql
ENV LANG en_US.utf8
RUN mkdir /docker-entrypoint-initdb.d
ENV PG_MAJOR 17
ENV PG_VERSION 17.2-1.pgdg120+1
ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
RUN set -ex; \
	export PYTHONDONTWRITEBYTECODE=1; \
	dir="/usr/lib/postgresql/$PG_MAJOR/bin"; \
	mkdir -p "$dir" /usr/share/postgresql; \
	printf '#!/bin/sh\necho %s\n' "$PG_VERSION" > "$dir/postgres"; \
	chmod 755 "$dir/postgres"; \
	postgres
RUN set -eux; \
	echo "#listen_addresses = 'localhost'" > /usr/share/postgresql/postgresql.conf.sample; \
	sed -ri "s!^#?(listen_addresses)\s*=\s*\S+.*!\1 = '*'!" /usr/share/postgresql/postgresql.conf.sample; \
	grep -F "listen_addresses = '*'" /usr/share/postgresql/postgresql.conf.sample
RUN install --verbose --directory --owner postgres --group postgres --mode 3777 /var/lib/pgrun
ENV PGDATA /var/lib/postgresql/data
RUN install --verbose --directory --owner postgres --group postgres --mode 1777 "$PGDATA"
VOLUME /var/lib/postgresql/data
COPY app/main.sh data/one.txt /usr/local/bin/
ENTRYPOINT ["main.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
