"""Counts visitors in Redis and writes them down in PostgreSQL."""

import os
import socket

import psycopg2
import redis
from flask import Flask

app = Flask(__name__)
cache = redis.Redis(host=os.environ["REDIS_HOST"])


def database():
    with open(os.environ["DATABASE_PASSWORD_FILE"], encoding="utf-8") as file:
        password = file.read().strip()
    return psycopg2.connect(
        host=os.environ["DATABASE_HOST"], user="postgres", password=password, connect_timeout=60
    )


@app.get("/")
def index():
    visit = cache.incr("visits")
    connection = database()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
            cursor.execute("CREATE TABLE IF NOT EXISTS visits (number bigint)")
            cursor.execute("INSERT INTO visits VALUES (%s)", (visit,))
            cursor.execute("SELECT count(*) FROM visits")
            (rows,) = cursor.fetchone()
    finally:
        connection.close()
    return {"visit": visit, "rows": rows, "served_by": socket.gethostname()}


@app.get("/health")
def health():
    return "well\n"
