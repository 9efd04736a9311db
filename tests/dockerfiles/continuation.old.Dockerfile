ARG REGISTRY

FROM ${REGISTRY}/busybox AS base
run echo a && \
    # a comment that goes
    echo b && \

    echo c \
      # another
      > /out
rUn set -e; \
  for f in 1 2; do \
    echo "$f # no comment" >> /loop; \
  done
   COPY   data/one.txt   /spaced   
FROM base
ENV Mixed=Case
