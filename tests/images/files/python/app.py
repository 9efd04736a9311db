"""The application of `python-flask`."""

import os
import sys
import time

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index():
    return f"hello from worker {os.getpid()}\n"


@app.post("/echo")
def echo():
    return request.get_data()


@app.get("/slow")
def slow():
    print("slow begins", flush=True)
    time.sleep(2)
    return "slow ends\n"


@app.get("/crash")
def crash():
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
