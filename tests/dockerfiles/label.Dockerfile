ARG REGISTRY
FROM ${REGISTRY}/busybox
LABEL one=1 two="2 2" "three three"=3
LABEL old style value
LABEL one=uno
