ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo one > /one && mkdir /dir && echo two > /dir/two
RUN echo three >> /one; names=$(ls /dir / | grep -v -e proc -e sys -e dev -e run); echo "$names" > /listing
RUN ["/bin/sh", "-c", "echo exec form > /exec"]
RUN ["/bin/touch", "/touched file"]
