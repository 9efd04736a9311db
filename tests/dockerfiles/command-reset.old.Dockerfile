ARG REGISTRY
FROM ${REGISTRY}/busybox AS base
ENTRYPOINT ["/bin/entry"]
CMD ["inherited"]
FROM base AS kept
CMD ["again", "with \"quotes\" and \\"]
FROM kept
RUN mkdir /one "/two words"
ENTRYPOINT []
EXPOSE 9000/udp 9001/udp 9002/udp 80
EXPOSE 80/tcp 9001/udp
STOPSIGNAL 9
VOLUME ["/one", "/two words"]
