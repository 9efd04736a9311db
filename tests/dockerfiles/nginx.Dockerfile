ARG REGISTRY
FROM ${REGISTRY}/debian
LABEL maintainer="NGINX Docker Maintainers <docker-maint@nginx.com>"
ENV NGINX_VERSION=1.27.3 NJS_VERSION=0.8.7 PKG_RELEASE=1~bookworm DYNPKG_RELEASE=1~bookworm
RUN set -x \
# create nginx user/group first, to be consistent throughout docker variants
    && echo "nginx:x:101:" >> /etc/group \
    && echo "nginx:x:101:101:nginx user:/nonexistent:/bin/false" >> /etc/passwd \
    && mkdir -p /etc/nginx/conf.d /var/log/nginx /var/cache/nginx /usr/share/nginx/html \
    && echo "<h1>Welcome</h1>" > /usr/share/nginx/html/index.html \
    && chown -R nginx:nginx /var/cache/nginx \
# forward request and error logs to docker log collector
    && ln -sf /dev/stdout /var/log/nginx/access.log \
    && ln -sf /dev/stderr /var/log/nginx/error.log \
# create a docker-entrypoint.d directory
    && mkdir /docker-entrypoint.d
COPY app/main.sh /docker-entrypoint.sh
COPY app/conf/app.conf data/one.txt /docker-entrypoint.d/
ENTRYPOINT ["/docker-entrypoint.sh"]
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
