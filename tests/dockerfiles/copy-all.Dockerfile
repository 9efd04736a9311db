ARG REGISTRY
FROM ${REGISTRY}/busybox AS made
WORKDIR /in
COPY * ./
COPY [ "data", "app/", "/in/merged/" ]
RUN ln -s conf app-link && ln -s /in/merged abs
FROM ${REGISTRY}/busybox
COPY --from=0 /in/abs /through
COPY --from=made /in/app-link /in/main.sh /links/
COPY --from=made /in/merged/../readme.md ../up.md
