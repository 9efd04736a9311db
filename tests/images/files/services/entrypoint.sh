#!/bin/bash
# Starts two services, passes a stop on to both, and ends when the first of them does.

redis-server --save '' --protected-mode no &
redis=$!
nginx -g 'daemon off;' &
nginx=$!

trap 'echo "stopping both"; kill -TERM "$redis"; kill -QUIT "$nginx"; stopped=yes' TERM INT

# A trapped signal ends `wait` as well.
wait -n
status=$?
if [ -z "$stopped" ]; then
    echo "a service ended with $status: stopping the other"
    kill -TERM "$redis" "$nginx" 2>/dev/null
fi
wait "$redis" && wait "$nginx" && [ -n "$stopped" ] && exit 0
exit "${status/#0/1}"
