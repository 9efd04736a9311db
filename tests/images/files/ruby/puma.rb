bind 'tcp://0.0.0.0:9292'
workers 2
threads 2, 4
preload_app!
# A stop that was asked for is no failure.
raise_exception_on_sigterm false
