ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN echo one > /one && echo "$HOME" > /two
RUN echo '$HOME' > /quoted && echo $HOME > /plain
RUN echo script > /script
RUN echo tabs > /tabs
