ARG REGISTRY
FROM ${REGISTRY}/busybox
ENV A=first EMPTY=""
ENV A=second B=${A} C="${A}-$B" D='$A' E=\$A F="\$A" G=x\ \ y
ENV H="a \
b" I=one\
two
ENV J="${EMPTY:-${A:+nested ${B}}}" K= L=${UNSET:+no}end
ENV LEGACY  spaced   $A   "quotes stay"
LABEL multi="line one\
 line two" "key with space"="v" single='$A "x"' dollar="$A" esc="a \"b\" \\ c" \
      # a comment in the middle
      last=l
ARG PLAIN="quoted value" OTHER='single $A'
RUN env | grep -E '^([A-L]|EMPTY|LEGACY|PLAIN|OTHER)=' | sort > /env
