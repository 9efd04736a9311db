"""The application of `python-fastapi`."""

import asyncio
import contextlib
import subprocess
import threading

import fastapi


@contextlib.asynccontextmanager
async def lifespan(_app):
    print("started", flush=True)
    yield
    print("stopped", flush=True)


app = fastapi.FastAPI()
app.router.lifespan_context = lifespan


@app.get("/")
async def index():
    return {"hello": "from fastapi"}


@app.get("/nap")
async def nap():
    await asyncio.sleep(0.1)
    return {"napped": True}


# Not async: these run in a pool of threads.
@app.get("/thread")
def thread():
    return {"main": threading.current_thread() is threading.main_thread()}


@app.get("/child")
def child():
    done = subprocess.run(["sh", "-c", "read x; echo got $x; exit 5"], input=b"it\n", capture_output=True)
    return {"status": done.returncode, "text": done.stdout.decode()}
