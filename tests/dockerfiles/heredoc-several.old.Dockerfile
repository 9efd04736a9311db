ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN mkdir /several && printf 'tab $WHO\ntwice\n' > /several/first && printf 'tab me $WHO "quoted" \\\n' > /several/second.txt && printf 'keeps\t$WHO and '"'quotes'"' \\n\n' > /several/third && chown 3:4 /several /several/*
COPY --chown=3:4 data/one.txt /several/
RUN printf '\tone me\n' > /one && echo 'two me' > /two
