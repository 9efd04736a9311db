ARG REGISTRY
FROM ${REGISTRY}/busybox
RUN --mount=type=tmpfs,target=/scratch echo lost > /scratch/file && cp /scratch/file /found
