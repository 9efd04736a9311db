ARG REGISTRY
FROM ${REGISTRY}/busybox AS deps
RUN echo deps > /deps
FROM deps AS build
RUN cat /deps > /built && echo built >> /built
FROM deps AS test
RUN echo tested > /tested
FROM scratch
COPY --from=build /built /
COPY --from=test /tested /
CMD ["/built"]
