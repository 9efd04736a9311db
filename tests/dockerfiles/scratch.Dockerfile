FROM scratch
COPY app/main.sh /bin/main
CMD ["/bin/main"]
