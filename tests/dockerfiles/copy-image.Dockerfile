FROM scratch
COPY --from=127.0.0.1:5000/busybox /etc/passwd /etc/group /etc/
COPY --from=127.0.0.1:5000/busybox /bin /bin
