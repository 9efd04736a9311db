ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir -p /gone/deep /stays && echo x > /gone/deep/file && echo y > /stays/file && echo z > /stays/other
RUN rm -r /gone && rm /stays/file
RUN rm -rf /stays && mkdir /stays && echo new > /stays/new
RUN rm -rf /home && echo now a file > /home
RUN rm -rf /var && ln -s /tmp /var
